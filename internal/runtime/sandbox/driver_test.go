package sandbox

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestGuestMountsOnPureV2(t *testing.T) {
	if m := guestMounts(onhost.Layout{Unified: "/sys/fs/cgroup"}, true); len(m) != 1 ||
		m[0].Type != "cgroup2" || m[0].Dir != "" {
		t.Errorf("the VM would see %+v", m)
	}
}

func TestNewRefusesBadParents(t *testing.T) {
	for _, parent := range []string{"", "/abs", "a/../b", "..", "a//b", "a b"} {
		if _, err := New(Config{Dir: t.TempDir(), CgroupParent: parent}); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("parent %q: %v", parent, err)
		}
	}
}
