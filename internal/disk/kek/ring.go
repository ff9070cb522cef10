package kek

import (
	"context"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Ring is several keys, newest first, while one takes the place of another: it wraps with the
// newest, and unwraps with whichever fits. Immutable; safe for concurrent use.
type Ring struct{ keys []*File }

// NewRing returns the ring of keys of the given bytes, newest first. Invalid if there is none.
func NewRing(keys ...[]byte) (*Ring, error) {
	r := &Ring{}
	for _, b := range keys {
		if len(b) != KeyLen {
			return nil, errs.New(errs.Invalid, "a key of %d bytes, and not %d", len(b), KeyLen)
		}
		k, err := New([KeyLen]byte(b))
		if err != nil {
			return nil, err
		}
		r.keys = append(r.keys, k)
	}
	if len(r.keys) == 0 {
		return nil, errs.New(errs.Invalid, "no key")
	}
	return r, nil
}

// ID returns the newest key's.
func (r *Ring) ID() string { return r.keys[0].ID() }

// Wrap wraps with the newest key.
func (r *Ring) Wrap(ctx context.Context, uid string, secret []byte) ([]byte, error) {
	return r.keys[0].Wrap(ctx, uid, secret)
}

// Unwrap undoes Wrap of any of the keys. Denied if none fits.
func (r *Ring) Unwrap(ctx context.Context, uid string, wrapped []byte) (secret []byte, err error) {
	for _, k := range r.keys {
		if secret, err = k.Unwrap(ctx, uid, wrapped); !errs.Is(err, errs.Denied) {
			return secret, err
		}
	}
	return nil, err
}
