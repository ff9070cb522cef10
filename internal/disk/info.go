package disk

import (
	"context"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Details is what the store says about a disk.
type Details struct {
	Path string       `json:"path"`
	Head *format.Head `json:"head"`
	// content in the newest map, a fork's inherited part too
	MappedBytes int64    `json:"mapped_bytes"`
	Checkpoints []string `json:"checkpoints"`
	// paths of children; escaped or digests where they are odd
	Forks      []string `json:"forks"`
	LogObjects int      `json:"log_objects"`
	MapObjects int      `json:"map_objects"`
	Segments   int      `json:"segments"`
	Objects    int      `json:"objects"`
	Bytes      int64    `json:"bytes"` // of all the disk's own objects
}

// Info reads a disk's head and lists its objects. It costs time in proportion to their number.
func Info(ctx context.Context, store blob.Store, path string) (*Details, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	client := oneShot(store)
	h, _, err := client.LoadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	var d *Details
	var listed bool // the head is
	begin := func() {
		d = &Details{Path: path, Head: h, Checkpoints: []string{}, Forks: []string{}}
	}
	if err := client.List(ctx, path+"/", "", begin, func(e blob.Entry) bool {
		listed = listed || e.Key == headKey(path)
		d.count(strings.TrimPrefix(e.Key, path+"/"), e.Size)
		return true
	}); err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "list objects of %s", path)
	}
	if !listed {
		if there, err := client.Exists(ctx, headKey(path)); there || err != nil {
			return nil, unlisted(headKey(path), err)
		}
	}
	src := &pageSource{store: client, codec: codec, lineage: h.Lineage}
	root, err := src.loadRoot(ctx, h.Root)
	if err != nil {
		return nil, err
	}
	if root != nil {
		d.MappedBytes = int64(root.Mapped) * BlockSize
	}
	return d, nil
}

func (d *Details) count(key string, size int64) {
	d.Objects++
	d.Bytes += size
	k, ok := format.ParseKey(key)
	if !ok {
		return // of a disk whose path lies below this one's
	}
	switch k.Kind {
	case format.KeyLog:
		d.LogObjects++
	case format.KeyMap:
		d.MapObjects++
	case format.KeySeg:
		d.Segments++
	case format.KeyCheckpoint:
		d.Checkpoints = append(d.Checkpoints, k.Name)
	case format.KeyRef:
		name := k.Name
		if child, ok := format.ChildOf(name); ok {
			name = child
		}
		d.Forks = append(d.Forks, name)
	}
}

// ReadOwnerDoc reads machine.json, which the disk keeps for its owner and doesn't look into.
// NotFound if there is none.
func ReadOwnerDoc(ctx context.Context, store blob.Store, path string) ([]byte, blob.ETag, error) {
	if err := checkPath(path); err != nil {
		return nil, "", err
	}
	obj, err := oneShot(store).Get(ctx, ownerKey(path), blob.All())
	if err != nil {
		return nil, "", errs.Wrap(errs.KindOf(err), err, "read machine.json of %s", path)
	}
	return obj.Data, obj.ETag, nil
}

// WriteOwnerDoc replaces the version of machine.json that has the ETag match, or creates it if
// match is empty. Conflict if another one is there; a caller whose earlier attempt was Unavailable
// reads and compares before it tries again. It makes one attempt.
func WriteOwnerDoc(
	ctx context.Context, store blob.Store, path string, doc []byte, match blob.ETag,
) (blob.ETag, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	var etag blob.ETag
	var err error
	if match == "" {
		etag, err = store.PutIfAbsent(ctx, ownerKey(path), doc)
	} else {
		etag, err = store.PutIfMatch(ctx, ownerKey(path), doc, match)
	}
	if err != nil {
		return "", errs.Wrap(errs.KindOf(err), err, "write machine.json of %s", path)
	}
	return etag, nil
}
