package pool

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Entry is what a restarted worker needs to use a VM.
type Entry struct {
	VM           fleet.VMID      `json:"vm"`
	ControlToken string          `json:"control_token"`
	Release      fleet.ReleaseID `json:"release"`
}

const entrySuffix = ".json"

// Registry is the durable list of the VMs that this worker has started: one file per VM.
type Registry struct{ dir string }

// OpenRegistry opens the registry in a directory, which it makes.
func OpenRegistry(dir string) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make the VM registry")
	}
	return &Registry{dir: dir}, nil
}

// Put saves a VM's entry durably.
func (r *Registry) Put(e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode VM %s", e.VM)
	}
	return atomicfile.Write(r.path(e.VM), b, 0o600)
}

// Drop removes a VM's entry. Idempotent.
func (r *Registry) Drop(vm fleet.VMID) error {
	if err := os.Remove(r.path(vm)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(errs.Internal, err, "forget VM %s", vm)
	}
	return nil
}

// All returns the entries by VM. A file that can't be read is left out: its VM is then unknown, and
// removed.
func (r *Registry) All() (map[fleet.VMID]Entry, error) {
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "read the VM registry")
	}
	all := make(map[fleet.VMID]Entry)
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), entrySuffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(r.dir, f.Name()))
		var e Entry
		if err != nil || json.Unmarshal(b, &e) != nil || string(e.VM) != name {
			continue
		}
		all[e.VM] = e
	}
	return all, nil
}

func (r *Registry) path(vm fleet.VMID) string {
	return filepath.Join(r.dir, string(vm)+entrySuffix)
}
