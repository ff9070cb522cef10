package errhttp_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestOnlyWhatIsRetriedIsUnavailable(t *testing.T) {
	for _, kind := range []errs.Kind{errs.Invalid, errs.Denied, errs.NotFound, errs.Exists,
		errs.Conflict, errs.Fenced,
		errs.Unsupported, errs.Exhausted, errs.Corrupt, errs.Internal, errs.Unavailable,
		"of a newer release"} {
		got := errhttp.Status(kind)
		if (got == 503) != (kind == errs.Unavailable) || got < 400 {
			t.Errorf("%s: status %d", kind, got)
		}
	}
}
