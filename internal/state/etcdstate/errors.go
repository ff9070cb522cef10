package etcdstate

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func errClosed() error { return errs.New(errs.Unavailable, "the state is closed") }

// failed gives an etcd error its kind. Where the caller's context or the store has ended, that is
// the cause, whatever etcd made of it.
func (s *Store) failed(parent context.Context, err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if cause := parent.Err(); cause != nil {
		return errs.Wrap(errs.Unavailable, cause, "%s", what)
	}
	if s.life.Err() != nil {
		return errs.Wrap(errs.Unavailable, errClosed(), "%s", what)
	}
	kind := kindOf(err)
	e := errs.Wrap(kind, err, "%s", what)
	if kind == errs.Exhausted {
		return e.WithRemedy(
			"compact and defragment etcd, or raise its quota, then disarm its NOSPACE alarm")
	}
	return e
}

// kindOf maps etcd's errors. What it doesn't know is Unavailable: an outcome that is unknown is the
// safe reading of an answer that isn't understood.
func kindOf(err error) errs.Kind {
	for _, known := range []struct {
		err  error
		kind errs.Kind
	}{
		{rpctypes.ErrCompacted, errs.Conflict},
		{rpctypes.ErrNoSpace, errs.Exhausted},
		{rpctypes.ErrCorrupt, errs.Corrupt},
		{rpctypes.ErrRequestTooLarge, errs.Invalid},
		{rpctypes.ErrTooManyOps, errs.Invalid},
	} {
		if errors.Is(rpctypes.Error(err), known.err) {
			return known.kind
		}
	}
	code := status.Code(err)
	var etcdErr rpctypes.EtcdError
	if errors.As(err, &etcdErr) {
		code = etcdErr.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return errs.Invalid
	case codes.PermissionDenied, codes.Unauthenticated:
		return errs.Denied
	case codes.Unimplemented:
		return errs.Unsupported
	case codes.DataLoss:
		return errs.Corrupt
	default:
		return errs.Unavailable
	}
}
