package servertest_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/servertest"
)

// TestStart: a program that ends, and one that never answers, fail with what they said, and are
// gone.
func TestStart(t *testing.T) {
	silent := errors.New("silent")
	sh := func(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }
	_, err := servertest.Start(sh("echo no room; exit 3"), time.Minute,
		func() error { return silent })
	if err == nil || !strings.Contains(err.Error(), "no room") ||
		!strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("one that ends: %v", err)
	}
	mute := sh("echo hello; exec sleep 1000")
	_, err = servertest.Start(mute, 100*time.Millisecond, func() error { return silent })
	if !errors.Is(err, silent) || !strings.Contains(err.Error(), "hello") {
		t.Errorf("one that never answers: %v", err)
	}
	if mute.ProcessState == nil {
		t.Error("one that never answers is left")
	}
	looks := 0
	s, err := servertest.Start(sh("exec sleep 1000"), time.Minute, func() error {
		if looks++; looks < 3 {
			return silent
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Kill()
}
