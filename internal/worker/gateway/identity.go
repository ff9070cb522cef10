package gateway

import (
	"context"
	"slices"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Identity is what of a disk's head no VM may change, and what its map may refer to. The worker
// reads it from the store before it lets a VM at the disk, so that a VM can't widen its own reach
// by rewriting its head.
type Identity struct {
	ID      string            `json:"id"`
	UID     string            `json:"uid"`
	Size    int64             `json:"size"` // bytes
	Mode    string            `json:"mode"`
	Lineage []format.Ancestor `json:"lineage"` // this disk first
}

// ReadIdentity reads it from the disk at path. NotFound where there is no disk, Unavailable where
// the store can't be asked, Corrupt or Unsupported where its head can't be read by this release.
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

// keeps reports what of the identity a head would change: "" for nothing.
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
