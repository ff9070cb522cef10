package gateway

import (
	"context"
	"slices"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Identity is the part of a disk's head that no VM may change, and that says what its map may refer
// to. The worker reads it from the store before it gives a VM access, so that no VM can widen its
// access by rewriting its head.
type Identity struct {
	ID      string            `json:"id"`
	UID     string            `json:"uid"`
	Size    int64             `json:"size"` // bytes
	Mode    string            `json:"mode"`
	Lineage []format.Ancestor `json:"lineage"` // this disk first
}

// ReadIdentity returns the identity of the disk at path. NotFound: no disk is there; Unavailable:
// the store is unreachable; Corrupt or Unsupported: this version can't read the head.
func ReadIdentity(ctx context.Context, store blob.Store, path string) (Identity, error) {
	obj, err := store.Get(ctx, headKey(path), blob.All())
	if err != nil {
		if errs.Is(err, errs.NotFound) {
			return Identity{}, errs.Wrap(errs.NotFound, err, "there is no disk at %s", path).
				WithRemedy("check the machine's disk URL with: sluice disk info")
		}
		return Identity{}, errs.Wrap(errs.KindOf(err), err, "read the head of disk %s", path)
	}
	h, err := format.DecodeHead(obj.Data)
	if err != nil {
		return Identity{}, errs.Wrap(errs.KindOf(err), err, "read the head of disk %s", path)
	}
	return Identity{ID: h.ID, UID: h.UID, Size: h.Size, Mode: h.Mode, Lineage: h.Lineage}, nil
}

// keeps returns which part of the identity a head would change; "": none.
func (i Identity) keeps(h *format.Head) string {
	switch {
	case h.ID != i.ID || h.UID != i.UID:
		return "id"
	case h.Size != i.Size:
		return "size"
	case h.Mode != i.Mode:
		return "mode"
	case !slices.Equal(h.Lineage, i.Lineage):
		return "lineage"
	}
	return ""
}
