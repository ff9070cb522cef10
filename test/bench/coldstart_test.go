//go:build bench

package bench

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	coldLatency = 20 * time.Millisecond
	coldRounds  = 5
	traceWait   = 11 * time.Second // by then a machine that runs has stored its boot trace
)

// TestColdStartOfAMachine measures the start of a stopped machine, from the wish to the first
// answer of its service, which reads 600 programs and libraries of its Debian before it serves. A
// VM that starts has nothing of the disk, so that the same with the store next door is what "warm"
// can be: nothing waits for it. Then the store is 20 ms away, with the boot trace of the start
// before and without.
func TestColdStartOfAMachine(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	var proxy *s3proxy.Proxy
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1, NoImage: true,
		StoreAt: func(at netip.Addr) string {
			proxy = s3proxy.StartAt(t, s3.Endpoint, at)
			return "s3://" + s3.Bucket + "/fleet?endpoint=" + url.QueryEscape(proxy.URL) +
				"&path_style=true&region=us-east-1"
		}})
	f.CreateDebianImage("debian", 1<<30, "busybox-static")
	m := f.Create("cold", "green", "w1", api.MachineConfig{Image: "debian", CPUs: 2, MemoryMiB: 512,
		Services: []api.Service{{
			Name: "web", HTTPPort: 8080, Check: &api.Check{Kind: "tcp", Port: 8080, Grace: 60},
			Cmd: []string{"/bin/sh", "-ec",
				"mkdir -p /srv; echo hello > /srv/index.html; find /usr/bin /usr/lib -type f | sort | head -n 600 | xargs cat > /dev/null; " +
					"exec /bin/busybox httpd -f -p 8080 -h /srv"},
		}}})
	store, err := blobs.Open(t.Context(), s3.URL("fleet"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cold := &coldStarts{t: t, f: f, id: m.ID, proxy: proxy, store: store}
	cold.stop()
	var near, traced, bare []time.Duration
	var asked [3]s3proxy.Asked
	for range coldRounds {
		for i, kind := range []struct {
			took    *[]time.Duration
			latency time.Duration
			trace   bool
		}{{&near, 0, true}, {&traced, coldLatency, true}, {&bare, coldLatency, false}} {
			if !kind.trace {
				cold.forgetTrace()
			}
			before := proxy.Asked()
			*kind.took = append(*kind.took, cold.start(kind.latency))
			asked[i] = proxy.Asked().Sub(before)
			cold.stop()
		}
	}
	report("start of a stopped machine, store next door", near)
	report(fmt.Sprintf("start of a stopped machine, store %v away, with boot trace",
		coldLatency), traced)
	report(fmt.Sprintf("start of a stopped machine, store %v away, without", coldLatency), bare)
	n := percentile(near, 50)
	fmt.Printf(
		"RESULT start of a stopped machine, store %v away: with boot trace %.2f x next door (aim 1.5), without %.2f x; asked in the last of each: %v; %v; %v\n",
		coldLatency, float64(percentile(traced, 50))/float64(n),
		float64(percentile(bare, 50))/float64(n), asked[0], asked[1], asked[2])
}

type coldStarts struct {
	t     *testing.T
	f     *fleettest.Fleet
	id    string
	proxy *s3proxy.Proxy
	store blob.Store
}

// start starts the machine with the store so far away, and returns how long its service took to
// answer.
func (c *coldStarts) start(latency time.Duration) time.Duration {
	c.t.Helper()
	c.proxy.SetLatency(latency)
	defer c.proxy.SetLatency(0)
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := c.f.StartMachine(ctx, c.id); err != nil {
		c.t.Fatal(err)
	}
	for !answers(ctx, c.f, c.id) {
		if ctx.Err() != nil {
			c.t.Fatal("the machine's service doesn't answer")
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	time.Sleep(traceWait)
	return took
}

// stop stops the machine, and lets the pool fill up.
func (c *coldStarts) stop() {
	c.t.Helper()
	if _, err := c.f.StopMachine(c.t.Context(), c.id); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.f.WaitMachine(c.t.Context(), c.id, client.UntilStopped,
		func(m api.Machine) bool { return m.State == "stopped" }); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
}

// forgetTrace removes all boot traces from the store. A start without one that its disk's head
// names goes on without.
func (c *coldStarts) forgetTrace() {
	c.t.Helper()
	var keys []string
	err := c.store.List(c.t.Context(), "", "", func(e blob.Entry) bool {
		if strings.Contains(e.Key, "/boot/") {
			keys = append(keys, e.Key)
		}
		return true
	})
	if err == nil && len(keys) == 0 {
		c.t.Error("there is no boot trace")
	}
	for _, key := range keys {
		if err == nil {
			err = c.store.Delete(c.t.Context(), key)
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
}
