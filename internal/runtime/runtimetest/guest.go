package runtimetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BuildGuest builds the program that is init in the suite's VMs, static, and returns its path.
func BuildGuest(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path,
		"github.com/sluice-platform/sluice/internal/runtime/runtimetest/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	return path
}

// ReleaseEnv names a directory that Release has made, for tests that run where nothing can be
// built.
const ReleaseEnv = "SLUICE_TEST_RELEASE"

// Release makes a release whose init is the guest program; it holds an ext4 image besides.
func Release(t testing.TB) string {
	t.Helper()
	if made := os.Getenv(ReleaseEnv); made != "" {
		return made
	}
	dir := t.TempDir()
	for _, d := range []string{"usr/bin", "usr/lib", "usr/share"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(BuildGuest(t), filepath.Join(dir, "usr/bin/sluice-init")); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "usr/share/ext4.img")
	out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", image, "24m").CombinedOutput()
	if err != nil {
		t.Fatalf("make ext4 image: %v\n%s", err, out)
	}
	return dir
}
