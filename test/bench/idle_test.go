//go:build bench

package bench

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	idleSettle = 5 * time.Second
	idleFor    = 60 * time.Second
	clockTicks = 100 // of /proc/PID/stat in a second, on every Linux that Go runs on
)

// TestIdleFleet prints what an idle fleet of three workers costs: processor time of its server and
// of each worker. Reports, one a second, and etcd's own timers are what is left. It fails by no
// figure: those of a busy host are higher.
func TestIdleFleet(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 3, NoImage: true})
	state, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	names, pids := []string{"server"}, []int{state.Server.PID}
	for _, h := range state.Workers {
		names, pids = append(names, h.Name), append(pids, h.Process.PID)
	}
	time.Sleep(idleSettle)
	before, began := make([]int64, len(pids)), time.Now()
	for i, pid := range pids {
		before[i] = processorTicks(t, pid)
	}
	time.Sleep(idleFor)
	took := time.Since(began).Seconds()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("idle fleet, %.0f s, load of the host %s", took, strings.Fields(string(load))[0])
	for i, pid := range pids {
		t.Logf("%-8s %.2f %% of a core", names[i],
			float64(processorTicks(t, pid)-before[i])/clockTicks/took*100)
	}
}

// processorTicks is the user and system time that a process has used.
func processorTicks(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ") // a name may hold spaces
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, the 14th and 15th of all
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return ticks
}
