package decorate

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Whole makes a read Unavailable whose answer is shorter than the object allows: it got lost on the
// way, and must not be taken for a broken object.
func Whole(s blob.Store) blob.Store { return &whole{Store: s} }

type whole struct{ blob.Store }

func (w *whole) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	o, err := w.Store.Get(ctx, key, r)
	if err != nil {
		return o, err
	}
	_, want, err := r.Resolve(o.Size)
	if err != nil {
		return o, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	if int64(len(o.Data)) != want {
		return blob.Object{}, errs.New(errs.Unavailable, "short read of %s: %d bytes of %d", key,
			len(o.Data), want)
	}
	return o, nil
}
