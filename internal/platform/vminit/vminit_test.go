package vminit

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestEnding: how a process of the platform has ended is told by what is known of it, the surest
// first.
func TestEnding(t *testing.T) {
	const killed, aborted, code3 = unix.WaitStatus(unix.SIGKILL), unix.WaitStatus(unix.SIGABRT),
		unix.WaitStatus(3 << 8)
	for what, c := range map[string]struct {
		status      unix.WaitStatus
		stuck       string
		outOfMemory bool
		want        string
	}{
		"by itself":                {status: code3, want: "exit code 3"},
		"by itself, beside a kill": {status: code3, outOfMemory: true, want: "exit code 3"},
		"by a signal":              {status: aborted, outOfMemory: true, want: "killed by SIGABRT"},
		"by somebody":              {status: killed, want: "killed by SIGKILL"},
		"by the kernel": {status: killed, outOfMemory: true,
			want: "killed: the platform of the VM is out of memory (it has 512 MiB, " +
				"416 of them for the disk)"},
		"by init": {status: killed, stuck: "it has not answered for 12s",
			want: "killed because it has not answered for 12s"},
	} {
		if got := ending(c.status, c.stuck, c.outOfMemory); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
