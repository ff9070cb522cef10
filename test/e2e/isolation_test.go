package e2e

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

func idle(services ...api.Service) api.MachineConfig {
	return api.MachineConfig{Image: fleettest.Image, CPUs: 0.25, MemoryMiB: 128, Services: services}
}

func httpd() api.Service {
	return api.Service{Name: "web", Cmd: []string{"httpd", "-f", "-p", "8080", "-h", "/srv"},
		HTTPPort: 8080, Check: &api.Check{Kind: "tcp", Port: 8080}}
}

// TestUserCodeStaysInItsMachine runs a hostile root in a machine's inner container (invariant 13).
func TestUserCodeStaysInItsMachine(t *testing.T) {
	userCodeStaysInItsMachine(t, "sandbox", 5*time.Second)
}

// userCodeStaysInItsMachine does so on workers of one runtime; patience is for a machine to be well
// again.
func userCodeStaysInItsMachine(t *testing.T, runtime string, patience time.Duration) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, Runtime: runtime})
	hostile := f.Create("hostile", "green", "w1", idle())
	greedy := idle(httpd())
	greedy.CPUs, greedy.MemoryMiB = 1, 96
	friend := f.Create("friend", "green", "w2", greedy)
	stranger := f.Create("stranger", "blue", "w2", idle(httpd()))

	t.Run("network", func(t *testing.T) {
		s, err := f.State()
		if err != nil {
			t.Fatal(err)
		}
		closed := []string{
			"[fe80::2%eth0]:7700", "[::1]:7700", "127.0.0.1:7700", // platformd
			"[fe80::1%eth0]:7701", "[fe80::1%eth0]:7600", // the store gateway, the worker
			net.JoinHostPort(hostile.PrivateIP, "7700"), net.JoinHostPort(friend.PrivateIP, "7700"),
			net.JoinHostPort(stranger.PrivateIP, "8080"), hostOf(t, s.ServerURL),
			hostOf(t, s.BridgeURL),
		}
		for _, w := range s.Workers {
			closed = append(closed, net.JoinHostPort(w.Address, "7600"),
				net.JoinHostPort(w.Address, "7701"))
		}
		open := net.JoinHostPort(friend.PrivateIP, "8080")
		out := f.Run(hostile.ID, append([]string{"probe", "dial", open}, closed...)...)
		for _, address := range closed {
			if !strings.Contains(out, address+" closed ") {
				t.Errorf("user code can reach %s", address)
			}
		}
		if !strings.Contains(out, open+" open\n") {
			t.Errorf("a machine can't reach another of its network on another worker:\n%s", out)
		}
	})
	t.Run("kernel", func(t *testing.T) {
		if out := f.Run(hostile.ID, "probe", "escape"); out != "" {
			t.Errorf("user code can:\n%s", out)
		}
	})
	t.Run("clock", func(t *testing.T) { clockIsTheHosts(t, f, friend) })
	t.Run("processes", func(t *testing.T) {
		for pid, command := range processes(t, f, hostile.ID) {
			if strings.Contains(command, "platformd") || strings.Contains(command, "blockd") {
				t.Errorf("user code sees the platform: %s %s", pid, command)
			}
		}
	})
	t.Run("forged addresses", func(t *testing.T) {
		forgedAddressesAreDropped(t, f, hostile,
			friend, stranger)
	})
	t.Run("memory and processes", func(t *testing.T) { greedIsPunished(t, f, friend, patience) })
}

// clockIsTheHosts compares how much time passes in a machine and outside: whatever waits in it, or
// finds that a store doesn't answer, goes by that.
func clockIsTheHosts(t *testing.T, f *fleettest.Fleet, m api.Machine) {
	uptime := func() (inside float64, before, after time.Time) {
		before = time.Now()
		out := f.Run(m.ID, "cat", "/proc/uptime")
		after = time.Now()
		if _, err := fmt.Sscan(out, &inside); err != nil {
			t.Fatal(err)
		}
		return inside, before, after
	}
	first, before1, after1 := uptime()
	time.Sleep(5 * time.Second)
	second, before2, after2 := uptime()
	least, most := before2.Sub(after1).Seconds(), after2.Sub(before1).Seconds()
	if passed := second - first; passed < 0.9*least || passed > 1.1*most {
		t.Errorf("%.1f s have passed in the machine, and from %.1f to %.1f outside", passed, least,
			most)
	}
}

func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func processes(t *testing.T, f *fleettest.Fleet, ref string) map[string]string {
	t.Helper()
	all := map[string]string{}
	out := f.Run(ref, "sh", "-c",
		`for p in /proc/[0-9]*; do echo "${p#/proc/} $(tr '\0' ' ' < $p/cmdline)"; done 2>/dev/null; true`)
	for line := range strings.Lines(out) {
		pid, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[pid] = command
	}
	if len(all) < 2 {
		t.Fatalf("this proves nothing: %q", out)
	}
	return all
}

// forgedAddressesAreDropped sends datagrams within a network, of which only those with the sender's
// own address may arrive.
func forgedAddressesAreDropped(t *testing.T, f *fleettest.Fleet, from, to, stranger api.Machine) {
	heard := make(chan string, 1)
	go func() {
		out, err := f.TryRun(t.Context(), to.ID, "probe", "hear", "9999", "3")
		if err != nil {
			out = err.Error()
		}
		heard <- out
	}()
	// the gateway is a neighbour now
	f.Run(from.ID, "probe", "dial", net.JoinHostPort(to.PrivateIP, "8080"))
	f.Run(to.ID, "sh", "-c", "until grep -q 270F /proc/net/udp6; do usleep 20000; done")
	for _, source := range []string{stranger.PrivateIP, "fdaa:0:1:0:9:0:9:2", to.PrivateIP,
		"fe80::1", from.PrivateIP} {
		f.Run(from.ID, "probe", "spoof", source, to.PrivateIP, "9999")
	}
	got := strings.Fields(<-heard)
	if !slices.Equal(got, []string{"listening", from.PrivateIP}) {
		t.Errorf("heard %q, want only the sender's own address %s", got, from.PrivateIP)
	}
}

// greedIsPunished uses up a machine's memory with processes; the machine and its services live on.
func greedIsPunished(t *testing.T, f *fleettest.Fleet, m api.Machine, patience time.Duration) {
	before, err := f.Machine(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if scores := f.Run(m.ID, "cat", "/proc/self/oom_score_adj"); scores != "900\n" {
		t.Errorf("user code begins with the score %q", scores)
	}
	if scores := f.Run(m.ID, "sh", "-c",
		"sleep 0.5; cat /proc/self/oom_score_adj /proc/1/oom_score_adj"); scores != "900\n0\n" {
		t.Errorf("the kernel would not choose user code: %q", scores)
	}
	got := f.Sluice("machine", "exec", m.ID, "--no-stdin", "--", "sh", "-c",
		"dd if=/dev/zero of=/dev/shm/x bs=1M count=50 2>/dev/null; x=$(head -c 1000000 /dev/zero | tr '\\0' x); "+
			"i=0; while [ $i -lt 500 ]; do i=$((i+1)); (x=$x$x; sleep 3) & done; wait")
	if got.Code == 125 { // else its exit code is whatever the kernel makes of it
		t.Errorf("the platform was ended, and not user code: %+v", got)
	}
	after := f.WaitHealthy(m.ID, patience)
	told := slices.DeleteFunc(ownEvents(after),
		func(e api.Event) bool { return e.Event == "out_of_memory" })
	if after.InstanceID != before.InstanceID || len(told) != len(ownEvents(before)) {
		t.Errorf("a machine that used up its memory was started again: %+v", told)
	}
}
