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

// Entry is what the worker must remember of a VM to use it again after a restart.
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

// Put remembers a VM; it is durable when Put returns.
func (r *Registry) Put(e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode VM %s", e.VM)
	}
	return atomicfile.Write(r.path(e.VM), b, 0o600)
}

// Drop forgets a VM. Forgetting one that isn't there is no error.
func (r *Registry) Drop(vm fleet.VMID) error {
	if err := os.Remove(r.path(vm)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(errs.Internal, err, "forget VM %s", vm)
	}
	return nil
}

// All returns what is remembered, by VM. A file that can't be read counts as not remembered: its VM
// is then unknown, and removed.
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
