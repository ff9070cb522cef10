package gateway

import (
	"context"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const slash = "/"

// Access is what the bearer of one token may do: read and write the objects of one disk, and read
// the log, segment, map and checkpoint objects of its ancestors. It is immutable. The worker saves
// it, so that after a restart it opens the same gateway again.
type Access struct {
	Token      string           `json:"token"`
	DiskPath   string           `json:"disk_path"` // relative to the pool
	Generation fleet.Generation `json:"generation,omitempty"`
	Writable   bool             `json:"writable,omitempty"`
	Disk       Identity         `json:"disk"`
}

type accessKey struct{}

// withAccess returns a context whose requests have this access.
func withAccess(ctx context.Context, a *Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// guard is a blob.Store that allows what the access in the context allows. It refuses everything
// else as Denied, without a request to the store.
type guard struct {
	store   blob.Store
	refused *refusals
	usage   *usage
	codec   func() (*format.Codec, error)
}

var _ blob.Store = guard{}

func (g guard) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if err := g.check(ctx, gatewayhttp.OpGet, key); err != nil {
		return blob.Object{}, err
	}
	return g.store.Get(ctx, key, r)
}

func (g guard) Put(ctx context.Context, key string, _ []byte) (blob.ETag, error) {
	return "", g.check(ctx, gatewayhttp.OpPut, key)
}

func (g guard) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if err := g.check(ctx, gatewayhttp.OpPutIfAbsent, key); err != nil {
		return "", err
	}
	if err := g.checkForm(accessOf(ctx), key, body); err != nil {
		return "", g.refuse(err)
	}
	if err := g.usage.admit(len(body)); err != nil {
		return "", g.refuse(err)
	}
	etag, err := g.store.PutIfAbsent(ctx, key, body)
	if err == nil {
		g.usage.add(len(body))
	}
	return etag, err
}

func (g guard) PutIfMatch(
	ctx context.Context, key string, body []byte, match blob.ETag,
) (blob.ETag, error) {
	if err := g.check(ctx, gatewayhttp.OpPutIfMatch, key); err != nil {
		return "", err
	}
	if err := accessOf(ctx).checkHead(body); err != nil {
		return "", g.refuse(err)
	}
	return g.store.PutIfMatch(ctx, key, body, match)
}

func (g guard) Delete(ctx context.Context, key string) error {
	return g.check(ctx, gatewayhttp.OpDelete, key)
}

func (g guard) List(
	ctx context.Context, prefix, startAfter string, yield func(blob.Entry) bool,
) error {
	if err := g.check(ctx, gatewayhttp.OpList, prefix); err != nil {
		return err
	}
	return g.store.List(ctx, prefix, startAfter, yield)
}

// check returns nil if the access in the context lets a request through, by all that is known
// before its body. Else the request counts as refused.
func (g guard) check(ctx context.Context, op, key string) error {
	a := accessOf(ctx)
	if a == nil {
		return g.refuse(denied("%s %s", op, key))
	}
	if err := a.permits(op, key); err != nil {
		return g.refuse(err)
	}
	return nil
}

// Close leaves the store open: it is the worker's.
func (g guard) Close() error { return nil }

// refuse counts a request as refused by the gateway itself, and returns err.
func (g guard) refuse(err error) error {
	g.refused.add()
	return err
}

// checkForm returns nil if a body is what a disk's writer stores under a key. What isn't would only
// be found when it is needed, or when the pool is collected.
func (g guard) checkForm(a *Access, key string, body []byte) error {
	k, ok := format.ParseKey(strings.TrimPrefix(key, a.DiskPath+slash))
	if !ok {
		return errs.New(errs.Invalid, "no writer of a disk stores anything as %s", key)
	}
	codec, err := g.codec()
	if err != nil {
		return err
	}
	form := a.Disk.form()
	if err := codec.CheckForm(k, body, &form); err != nil {
		return errs.Wrap(errs.Invalid, err, "the store gateway doesn't take this for %s", key)
	}
	return nil
}

// fits returns nil unless an object of that size can't be what its key says.
func (a *Access) fits(key string, size int64) error {
	rel, own := strings.CutPrefix(key, a.DiskPath+slash)
	k, ok := format.ParseKey(rel)
	if !own || !ok {
		return nil // refused for that, later
	}
	form := a.Disk.form()
	if limit := form.MaxBytes(k.Kind); limit > 0 && size > limit {
		return errs.New(errs.Invalid, "%d bytes for %s, which has at most %d", size, key, limit)
	}
	return nil
}

// accessOf returns the access in a context; nil: there is none.
func accessOf(ctx context.Context) *Access {
	a, _ := ctx.Value(accessKey{}).(*Access)
	return a
}

// permits returns nil for a request that the access allows, whatever its body is.
func (a *Access) permits(op, key string) error {
	rel, own := strings.CutPrefix(key, a.DiskPath+slash)
	if op == gatewayhttp.OpList {
		// A prefix may end inside an element, but what comes before must be a plain path.
		if !own || (rel != "" && blob.CheckKey(strings.TrimSuffix(key, slash)) != nil) {
			return denied("list %s", key)
		}
		return nil
	}
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	switch op {
	case gatewayhttp.OpGet:
		if a.reads(key) {
			return nil
		}
		return denied("read %s", key)
	case gatewayhttp.OpPutIfAbsent:
		if a.Writable && own && writersOwn(rel) {
			return nil
		}
		return denied("write %s", key)
	case gatewayhttp.OpPutIfMatch:
		if a.Writable && key == headKey(a.DiskPath) {
			return nil
		}
		return denied("replace %s", key)
	case gatewayhttp.OpPut:
		return denied("overwrite %s", key)
	}
	return denied("%s %s", op, key)
}

func (a *Access) reads(key string) bool {
	if strings.HasPrefix(key, a.DiskPath+slash) {
		return true
	}
	for _, ancestor := range a.Disk.Lineage {
		if rel, ok := strings.CutPrefix(key, ancestor.Path+slash); ok && writersOwn(rel) {
			return true
		}
	}
	return false
}

// checkHead returns nil for a head of this disk at this generation, else Denied.
func (a *Access) checkHead(body []byte) error {
	h, err := format.DecodeHead(body)
	if err != nil {
		return errs.Wrap(errs.Denied, err, "replace the head of %s", a.DiskPath)
	}
	if field := a.Disk.keeps(h); field != "" {
		return denied("change the %s of disk %s", field, a.DiskPath)
	}
	if h.Generation != uint64(a.Generation) {
		return denied("write generation %d into the head of %s, which was bound with %d",
			h.Generation, a.DiskPath, a.Generation)
	}
	return nil
}

// writersOwn reports whether a key below a disk's path is of a kind that the disk's writer makes
// and its forks read; its head is not.
func writersOwn(rel string) bool {
	for _, f := range format.WriterFolders {
		if len(rel) > len(f) && strings.HasPrefix(rel, f) {
			return true
		}
	}
	return false
}

func headKey(path string) string { return format.Key{Kind: format.KeyHead}.In(path) }

func denied(format string, args ...any) error {
	return errs.New(errs.Denied, "the store gateway doesn't let this VM "+format, args...)
}
