//go:build bench

package device

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
)

// TestIdleDisk counts what a disk asks of the store while nobody uses it: attached alone, and with
// ext4 mounted on it that was written before. And it measures the memory of the process that serves
// it, all of it.
func TestIdleDisk(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	// by then the last map is written, and idle memory is given back
	const settle, minutes = 75 * time.Second, 2
	type idler struct {
		what   string
		proxy  *s3proxy.Proxy
		server *server
		before s3proxy.Asked
	}
	idlers := []*idler{{what: "attached"}, {what: "attached, with ext4 mounted that was written"}}
	for i, x := range idlers {
		x.proxy = s3proxy.Start(t, s3.Endpoint)
		x.server = startServer(t, diskURL(x.proxy, s3, fmt.Sprint("idle", i)))
	}
	run(t, "mkfs.ext4", "-q", idlers[1].server.Device)
	dir, unmount := mount(t, idlers[1].server.Device, "ext4", "noinit_itable")
	if err := writeTree(dir + "/tree"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(settle)
	for _, x := range idlers {
		x.before = x.proxy.Asked()
	}
	time.Sleep(minutes * time.Minute)
	for _, x := range idlers {
		did := x.proxy.Asked().Sub(x.before)
		result(
			"idle disk, %s: %.1f requests a minute (bound 2; %v in %d min); resident memory of the process %s, of it anonymous %s", x.what,
			float64(did.GETs+did.PUTs+did.Others)/minutes, did, minutes,
			procStatus(t, x.server, "VmRSS"), procStatus(t, x.server, "RssAnon"))
	}
	unmount()
	for _, x := range idlers {
		x.server.Close()
		x.before = x.proxy.Asked()
	}
	time.Sleep(time.Minute)
	for _, x := range idlers {
		did := x.proxy.Asked().Sub(x.before)
		result("closed disk, that was %s: %d requests in a minute", x.what,
			did.GETs+did.PUTs+did.Others)
	}
}

// procStatus returns a field of the serving process's status.
func procStatus(t *testing.T, s *server, field string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in the status", field)
	return ""
}
