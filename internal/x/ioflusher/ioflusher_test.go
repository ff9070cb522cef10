package ioflusher

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestBecome runs in a process of its own, which keeps the mark. Where that may be, threads made
// before and after have it, and one that leaves has not; where it may not, the error says what is
// missing and nothing is marked.
func TestBecome(t *testing.T) {
	if os.Getenv("SLUICE_TEST_BECOME") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestBecome$", "-test.v")
		cmd.Env = append(os.Environ(), "SLUICE_TEST_BECOME=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "PASS: TestBecome") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	err := Become()
	marked := make(chan bool)
	go func() {
		runtime.LockOSThread() // a thread of its own, which ends with this function
		marked <- Is()
		if err := Leave(); err != nil {
			t.Error(err)
		}
		marked <- Is()
	}()
	if first, left := <-marked, <-marked; first != (err == nil) || left {
		t.Errorf("marked %v, and %v after it left; %v", first, left, err)
	}
	if err != nil && !errs.Is(err, errs.Unsupported) {
		t.Errorf("kind %q: %v", errs.KindOf(err), err)
	}
}
