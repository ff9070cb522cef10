package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestGuestMountsOnPureV2(t *testing.T) {
	if m := guestMounts(onhost.Layout{Unified: "/sys/fs/cgroup"}); len(m) != 1 || m[0].Type != "cgroup2" || m[0].Dir != "" {
		t.Errorf("the VM would see %+v", m)
	}
}

func TestNewRefusesBadParents(t *testing.T) {
	for _, parent := range []string{"", "/abs", "a/../b", "..", "a//b", "a b"} {
		if _, err := New(Config{Dir: t.TempDir(), CgroupParent: parent}); !errs.Is(err, errs.Invalid) {
			t.Errorf("parent %q: %v", parent, err)
		}
	}
}

func TestRecordSurvivesGarbage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "0123abcd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "{", `{"id":"ffffffff","pid":1}`} {
		if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readRecord(dir, "sluice/w1")
		if err != nil || r.ID != "0123abcd" || r.PID != 0 || r.CgroupParent != "sluice/w1" {
			t.Errorf("content %q: %+v, %v", content, r, err)
		}
	}
	whole := record{ID: "0123abcd", CgroupParent: "other/w2", Boot: "b", PID: 7, StartTicks: 99}
	if err := whole.write(dir); err != nil {
		t.Fatal(err)
	}
	if r, err := readRecord(dir, "sluice/w1"); err != nil || r != whole {
		t.Errorf("%+v, %v", r, err)
	}
}
