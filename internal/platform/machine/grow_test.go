package machine

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestUngrown: why a file system has not grown is said with how large it is, and with the remedy
// that fits.
func TestUngrown(t *testing.T) {
	wrap := func(cause error) error { return errs.Wrap(errs.Unavailable, cause, "grow") }
	for _, c := range []struct {
		err   error
		words []string
	}{
		{wrap(unix.EPERM), []string{"has 64 MiB of the disk's 1024 MiB", unix.EPERM.Error(),
			"CAP_SYS_RESOURCE"}},
		{wrap(unix.ENOSPC), []string{"has 64 MiB", unix.ENOSPC.Error(), "kernel's log"}},
		{errs.New(errs.Invalid, "there is no ext4"), []string{"there is no ext4", "kernel's log"}},
	} {
		got := ungrown(64<<20, 1<<30, c.err)
		for _, w := range c.words {
			if !strings.Contains(got, w) {
				t.Errorf("%v: %q doesn't say %q", c.err, got, w)
			}
		}
	}
}
