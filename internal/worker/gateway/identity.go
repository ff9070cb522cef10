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
	// Origin is nil in records of older releases, and then no head is held against it.
	Origin *Origin `json:"origin,omitempty"`
}

// Origin is what a head says of other disks and stores. A collector writes a reference into the
// parent, and opens the log store.
type Origin struct {
	Parent *format.Parent `json:"parent,omitempty"`
	LogURL string         `json:"log_url,omitempty"`
	// LogBinding tells the log store whose it is.
	LogBinding string `json:"log_binding,omitempty"`
}

func originOf(h *format.Head) Origin {
	o := Origin{Parent: h.Parent}
	if h.LogStore != nil {
		o.LogURL, o.LogBinding = h.LogStore.URL, h.LogStore.Binding
	}
	return o
}

// same reports whether two origins are the same.
func (o *Origin) same(other Origin) bool {
	parents := o.Parent == nil && other.Parent == nil ||
		o.Parent != nil && other.Parent != nil && *o.Parent == *other.Parent
	return parents && o.LogURL == other.LogURL && o.LogBinding == other.LogBinding
}

// form is what the objects of the disk must be like.
func (i *Identity) form() format.Form {
	return format.Form{UID: i.UID, Size: i.Size, Lineage: i.Lineage,
		LogStore: i.Origin == nil || i.Origin.LogURL != ""}
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
	origin := originOf(h)
	return Identity{ID: h.ID, UID: h.UID, Size: h.Size, Mode: h.Mode, Lineage: h.Lineage,
		Origin: &origin}, nil
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
	case i.Origin != nil && !i.Origin.same(originOf(h)):
		return "parent or log store"
	}
	return ""
}
