package worker

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// recordFormat is the version of a record's file. A newer one is refused.
const recordFormat = 1

// record is what a worker remembers of one machine, durably.
type record struct {
	Format int `json:"format"`
	// Assignment is the newest accepted; its generation only grows.
	Assignment fleet.Assignment `json:"assignment"`
	// Run is the machine's current or last run here; nil: none since it was last forgotten.
	Run *machineRun `json:"life,omitempty"`
	// Forgotten is when the control plane stopped naming the machine; zero: it does name it. Of a
	// forgotten machine only Assignment matters.
	Forgotten time.Time `json:"forgotten,omitzero"`
}

// machineRun is one stay of a machine on this worker, in one VM at most. It is kept after its end,
// until the next one begins or the machine is forgotten.
type machineRun struct {
	Generation fleet.Generation `json:"generation"` // as reported
	Instance   fleet.InstanceID `json:"instance"`

	VM           fleet.VMID      `json:"vm,omitempty"` // "": none yet, or removed
	ControlToken string          `json:"control_token,omitempty"`
	Release      fleet.ReleaseID `json:"release,omitempty"`
	// Access is what the gateway allows: reads until Bound, then also writes, at BoundGeneration.
	Access gateway.Access `json:"access"`
	// Bound is set before the VM is sent the bind. From then on its disk may be attached.
	Bound           bool             `json:"bound,omitempty"`
	BoundGeneration fleet.Generation `json:"bound_generation,omitempty"`

	Phase    fleet.Phase               `json:"phase"`
	Since    time.Time                 `json:"since"`
	Timeline map[fleet.Phase]time.Time `json:"timeline,omitempty"`
	End      *ending                   `json:"end,omitempty"`
	Disk     fleet.DiskReport          `json:"disk"` // as of the last write
}

// ending is how a run ended.
type ending struct {
	Want      fleet.Want `json:"want"` // what the assignment wanted when it ended
	ErrorKind string     `json:"error_kind,omitempty"`
	Error     string     `json:"error,omitempty"`
	Remedy    string     `json:"remedy,omitempty"`
}

// recordStore is the durable records, one file per machine.
type recordStore struct{ dir string }

func openRecords(dir string) (*recordStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make the worker's records")
	}
	return &recordStore{dir: dir}, nil
}

func (s *recordStore) path(id fleet.MachineID) string {
	return filepath.Join(s.dir, string(id)+".json")
}

// save makes a record durable.
func (s *recordStore) save(id fleet.MachineID, r record) error {
	r.Format = recordFormat
	b, err := json.Marshal(r)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the record of machine %s", id)
	}
	if err := atomicfile.Write(s.path(id), b, 0o600); err != nil {
		return errs.Wrap(errs.Unavailable, err, "remember machine %s", id).
			WithRemedy("check that the worker's data directory has space and is writable")
	}
	return nil
}

// load returns a machine's record, or the empty one if there is none. If the file can't be read, it
// fails as Internal, Corrupt or Unsupported: without the generation, the worker might accept an
// older assignment.
func (s *recordStore) load(id fleet.MachineID) (record, error) {
	b, err := os.ReadFile(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, errs.Wrap(errs.Internal, err, "read the record of machine %s", id)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, errs.Wrap(errs.Corrupt, err, "read the record of machine %s", id).
			WithRemedy("drain what runs here, then remove %s", s.path(id))
	}
	if r.Format > recordFormat {
		return record{}, errs.New(errs.Unsupported, "the record of machine %s is of format %d",
			id, r.Format).
			WithRemedy("use the release of sluice that wrote it, or a newer one")
	}
	return r, nil
}

// all returns every record, and removes those that were forgotten longer ago than keep.
func (s *recordStore) all(now time.Time, keep time.Duration) (map[fleet.MachineID]record, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "read the worker's records")
	}
	out := make(map[fleet.MachineID]record)
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !fleet.IsMachineID(name) {
			continue
		}
		id := fleet.MachineID(name)
		r, err := s.load(id)
		if err != nil {
			return nil, err
		}
		if !r.Forgotten.IsZero() && now.Sub(r.Forgotten) > keep {
			if err := os.Remove(s.path(id)); err != nil {
				return nil, errs.Wrap(errs.Internal, err, "drop the record of machine %s", id)
			}
			continue
		}
		out[id] = r
	}
	return out, nil
}
