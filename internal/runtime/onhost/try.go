package onhost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Try makes a VM's directory and calls try in it, to find out whether this host can run VMs. It
// leaves nothing behind, and Adopt never takes it for a VM that runs.
func (s *VMs[V]) Try(ctx context.Context, try func(context.Context, V) error) (err error) {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	id := fleet.VMID(hex.EncodeToString(random))
	if !s.reserve(id) {
		return errs.New(errs.Unavailable, "VM id %s is taken", id)
	}
	v := s.wrap(Record{ID: id, CgroupParent: s.cfg.CgroupParent, Boot: s.bootID})
	v.onHost().End("was only a probe")
	defer func() {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), UndoTimeout)
		defer cancel()
		err = errors.Join(err, v.Remove(undo))
	}()
	if err := os.Mkdir(v.onHost().Dir(), 0o700); err != nil {
		return errs.Wrap(errs.Unsupported, err, "make a directory of a VM")
	}
	return try(ctx, v)
}
