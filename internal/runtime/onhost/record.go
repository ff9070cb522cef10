package onhost

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Record is what a VM's directory says of it. It is written before anything else is made, and again
// when the process is known. Everything else follows from the VM's id.
type Record struct {
	ID           fleet.VMID `json:"id"`
	CgroupParent string     `json:"cgroup_parent"`
	// of the host; pids of another boot mean nothing
	Boot       string    `json:"boot"`
	PID        int       `json:"pid,omitempty"`         // 0: it has never run
	StartTicks uint64    `json:"start_ticks,omitempty"` // of that pid, since the host booted
	StartedAt  time.Time `json:"started_at,omitzero"`
	// for a driver whose process is there before the VM is
	Whole bool `json:"whole,omitempty"`
	// for a driver whose VMs have ids of their own on the host: the first of them
	FirstID uint32 `json:"first_id,omitempty"`
	// a process beside the VM that is this worker's child; 0 once the VM is adopted
	Beside int `json:"-"`
}

const recordFile = "vm.json"

// Write replaces the record in the VM's directory atomically. It isn't synced: after a power cut
// nothing is left that the record is needed for.
func (r Record) Write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode record of VM %s", r.ID)
	}
	tmp := filepath.Join(dir, recordFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return errs.Wrap(errs.Internal, err, "write record of VM %s", r.ID)
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordFile)); err != nil {
		return errs.Wrap(errs.Internal, err, "publish record of VM %s", r.ID)
	}
	return nil
}

// ReadRecord returns the record in dir. Without one, or with a torn one, it returns what the name
// of dir tells: such a VM never ran, or the host has lost power since.
func ReadRecord(dir, cgroupParent string) (Record, error) {
	bare := Record{ID: fleet.VMID(filepath.Base(dir)), CgroupParent: cgroupParent}
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return bare, nil
	}
	if err != nil {
		return Record{}, errs.Wrap(errs.Internal, err, "read record in %s", dir)
	}
	var r Record
	if json.Unmarshal(b, &r) != nil || r.ID != bare.ID {
		return bare, nil
	}
	return r, nil
}
