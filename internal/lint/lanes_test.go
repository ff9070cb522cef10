package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestWhatSharesTheKernelRunsAlone holds scripts/test.sh to its word: packages whose tests use loop
// devices, mounts, namespaces, VMs or fleets run one at a time, and the others beside them.
func TestWhatSharesTheKernelRunsAlone(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(root, "scripts/test.sh"))
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?s)\nkernel=\((.*?)\)`).FindSubmatch(script)
	if list == nil {
		t.Fatal("scripts/test.sh has no list of the packages that share the kernel")
	}
	patterns := strings.Fields(string(list[1]))
	alone := func(dir string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			tree, all := strings.CutSuffix(strings.TrimPrefix(p, "./"), "/...")
			return dir == tree || all && within(dir, tree)
		})
	}
	uses := regexp.MustCompile(
		`"losetup"|\b(unix|syscall)\.(Mount|Unshare)\(|Cloneflags|Unshareflags|` +
			`"` + module +
			`(internal/(disk/frontend|devfleet|hostnet|runtime/[a-z/]+)|test/fleettest)"`)
	found := 0
	for _, s := range tree(t) {
		if !s.isTest() || within(s.dir(), "internal/lint") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, s.path))
		if err != nil {
			t.Fatal(err)
		}
		if what := uses.FindString(string(text)); what != "" {
			found++
			if !alone(s.dir()) {
				t.Errorf(
					"%s: has %s, so its package shares the kernel with others; add it to kernel in scripts/test.sh", s.path, what)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d files of tests use the kernel: this test has become blind", found)
	}
}
