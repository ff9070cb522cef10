package qemu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuestIsReproducible builds the guest from a copy of the sources elsewhere: the same id, which
// is the content's.
func TestGuestIsReproducible(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "internal", "scripts"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, name),
			elsewhere).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", name, err, out)
		}
	}
	build := func(tree string) (id, dir string) {
		out := t.TempDir()
		cmd := exec.Command(filepath.Join(tree, "scripts/build-guest.sh"), out)
		cmd.Stderr = t.Output()
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("build guest in %s: %v", tree, err)
		}
		id = strings.TrimSpace(string(b))
		return id, filepath.Join(out, id)
	}
	id, dir := build(root) // downloads the kernel, if it isn't there
	if err := os.Symlink(filepath.Join(root, ".cache"),
		filepath.Join(elsewhere, ".cache")); err != nil {
		t.Fatal(err)
	}
	other, otherDir := build(elsewhere)
	if id != other || len(id) != 64 {
		t.Fatalf("two builds of the same sources: %s and %s", id, other)
	}
	for _, file := range []string{"vmlinux", "initramfs"} {
		if out, err := exec.Command("cmp", filepath.Join(dir, file),
			filepath.Join(otherDir, file)).CombinedOutput(); err != nil {
			t.Errorf("%s differs: %v\n%s", file, err, out)
		}
	}
}
