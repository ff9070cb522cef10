package platform_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

func logSteps(t *testing.T, what string, h guestapi.Health) {
	t.Helper()
	for _, s := range h.Steps {
		t.Logf("%s: %-28s %8.2f ms", what, s.Name, float64(s.Took.Microseconds())/1000)
	}
}

func webService() fleet.Service {
	return fleet.Service{Name: "web", Cmd: []string{"httpd", "-f", "-p", "8080", "-h", "/data"},
		HTTPPort: 8080,
		Check:    &fleet.Check{Kind: fleet.CheckTCP, Port: 8080}}
}

func TestBindAndRelease(t *testing.T) {
	id := newDisk(t)
	var bindTook, releaseTook time.Duration
	for gen := range fleet.Generation(3) {
		b := bindOf(id, gen+1, webService())
		v := startVM(t)
		v.await("empty", made)
		began := time.Now()
		v.bind(b)
		v.bind(b) // twice is once
		v.await("healthy", inState(guestapi.StateHealthy))
		bindTook = time.Since(began)
		began = time.Now()
		h := v.release(b)
		releaseTook = time.Since(began)
		logSteps(t, "steps", h)
		if h.State != guestapi.StateReleased {
			t.Fatalf("state %s", h.State)
		}
		fsck(t, id)
		v.release(b) // again
		t.Logf("bind until healthy %v, release %v", bindTook, releaseTook)
	}
}

// TestDiskLargerThanItsImage: the file system grows to what the disk has, before anybody in the
// machine sees it. Where the platform may not do that, the machine's report says so, also after
// platformd was started again; and what is there is whole.
func TestDiskLargerThanItsImage(t *testing.T) {
	t.Parallel()
	id := newLargeDisk(t, 1<<30)
	b := bindOf(id, 1)
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	size := func() (mib int) {
		if _, err := fmt.Sscan(v.sh("df -m / | tail -n 1 | awk '{print $2}'"), &mib); err != nil {
			t.Fatal(err)
		}
		return mib
	}
	check := func() {
		t.Helper()
		h := v.health()
		if mayGrow(t) {
			if got := size(); got < 900 || h.Disk.Ungrown != "" {
				t.Errorf("the file system has %d MiB, and %q", got, h.Disk.Ungrown)
			}
			return
		}
		t.Log("this process may not resize a mounted ext4")
		if got := size(); got > 64 || !strings.Contains(h.Disk.Ungrown,
			"has 64 MiB of the disk's 1024 MiB") ||
			!strings.Contains(h.Disk.Ungrown, "CAP_SYS_RESOURCE") {
			t.Errorf("the file system has %d MiB, and %q", got, h.Disk.Ungrown)
		}
	}
	check()
	v.kill("platformd")
	v.await("healthy again", func(h guestapi.Health) bool {
		return h.Platform != nil &&
			h.State == guestapi.StateHealthy
	})
	check()
	v.release(b)
	fsck(t, id)
}

// mayGrow reports whether this process, and so the VMs that it starts, may resize a mounted ext4.
func mayGrow(t *testing.T) bool {
	t.Helper()
	caps, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3},
		[2]unix.CapUserData{}
	if err := unix.Capget(&caps, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
