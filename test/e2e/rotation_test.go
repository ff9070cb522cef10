package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestTheAuthorityIsRotated under traffic, with the server killed in the middle: no request fails
// while there is a server. Then its key is lost, and root on the server gets the fleet back. The
// machines have noticed nothing of all this.
func TestTheAuthorityIsRotated(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 0,
		Args: []string{"--worker-down", "10m"}})
	m := f.Create("m", "green", "w2", fleettest.LedgerConfig())
	old, err := client.ReadFleetFile(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	thief := copyIdentity(t, f, "w1")
	load := newLoad(f, m.ID)
	stopLoad := load.start(t)
	for _, step := range []string{"begin", "switch", "finish"} {
		rotate(t, f, step)
		awaitFollowed(t, f)
		if step == "begin" {
			trustBoth(t, f, load)
		}
		// It dies in the middle; what it answered is kept. Not once the new one signs: connections
		// of before would go with it, which are to be left in time.
		if step == "begin" {
			load.pause()
			err := errors.Join(f.KillServer(t.Context()), f.StartServer(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			f.Eventually(time.Minute, func() error { // workers report again
				_, err := f.Ledger(t.Context(), m.ID, "acked")
				return err
			})
			load.resume()
			awaitFollowed(t, f)
		}
	}
	time.Sleep(2 * time.Second) // of traffic
	stopLoad()
	t.Logf("%d requests, %d failed", load.asked.Load(), load.failed.Load())
	if load.asked.Load() < 50 || load.failed.Load() > 0 {
		t.Errorf("%d of %d requests failed: %v", load.failed.Load(), load.asked.Load(), load.why)
	}
	outdated(t, old)
	if got := statusOf(t, old.URL, thief); got != http.StatusForbidden {
		t.Errorf("a certificate of the old authority: %d", got)
	}
	loseTheKey(t, f)
	after := f.WaitHealthy(m.ID, 5*time.Minute)
	if after.InstanceID != m.InstanceID || after.Worker != m.Worker {
		t.Errorf("the machine was started anew: %s on %s, then %s on %s", m.InstanceID, m.Worker,
			after.InstanceID, after.Worker)
	}
	if n, err := f.Ledger(t.Context(), m.ID, "verify"); err != nil || n == 0 {
		t.Errorf("%d entries are left: %v", n, err)
	}
}

// rotate takes a step by the command line, once all have followed the one before.
func rotate(t *testing.T, f *fleettest.Fleet, step string) {
	t.Helper()
	if r := f.Sluice("ca", "rotate", step); r.Code != 0 {
		t.Fatalf("%s: %s", step, r.Stderr)
	}
}

// awaitFollowed waits until all workers are where the authority is.
func awaitFollowed(t *testing.T, f *fleettest.Fleet) {
	t.Helper()
	f.Eventually(3*time.Minute, func() error {
		a, err := f.Authority(t.Context())
		if err == nil && (len(a.Behind) > 0 || len(a.Current) != 2) {
			err = fmt.Errorf("%s: %v have followed, %v have not", a.Phase, a.Current, a.Behind)
		}
		return err
	})
}

// trustBoth gives clients the new authority, without which the next step is refused.
func trustBoth(t *testing.T, f *fleettest.Fleet, l *load) {
	t.Helper()
	r := f.Sluice("ca", "rotate", "switch")
	if r.Code == 0 || !strings.Contains(r.Stderr, "would be shut out") ||
		!strings.Contains(r.Stderr, "ca show --pem") {
		t.Errorf("a client that doesn't know the new authority may switch: %d %s", r.Code, r.Stderr)
	}
	r = f.Sluice("ca", "show", "--pem")
	if r.Code != 0 || strings.Count(r.Stdout, "BEGIN CERTIFICATE") != 2 {
		t.Fatalf("%s%s", r.Stdout, r.Stderr)
	}
	if err := os.WriteFile(filepath.Join(f.Dir, client.CAFileName), []byte(r.Stdout),
		0o600); err != nil {
		t.Fatal(err)
	}
	l.reread(t)
}

// outdated: a client that has slept through it all is told what to do.
func outdated(t *testing.T, old client.FleetFile) {
	t.Helper()
	c, err := client.New(old.URL, old.Token, client.WithCA(old.CA))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Server(t.Context())
	if err == nil || !strings.Contains(fmt.Sprint(err), "is not of this fleet") {
		t.Errorf("a client that knows the old authority alone: %v", err)
	}
}

func copyIdentity(t *testing.T, f *fleettest.Fleet, worker string) *identity.Held {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.CertificateDir(worker), "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "identity.pem"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := identity.Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// statusOf asks for w1's assignments with a certificate, of whoever answers.
func statusOf(t *testing.T, url string, own *identity.Held) int {
	t.Helper()
	cfg := identity.ClientConfig(own, identity.IsServer)
	cfg.VerifyConnection = nil
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(
		url + "/internal/v1/workers/w1/assignments")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// loseTheKey is what docs/operations.md says of it.
func loseTheKey(t *testing.T, f *fleettest.Fleet) {
	t.Helper()
	if err := errors.Join(f.KillServer(t.Context()),
		os.Remove(filepath.Join(f.AuthorityDir(), "ca.key"))); err != nil {
		t.Fatal(err)
	}
	if err := f.StartServer(t.Context()); err == nil {
		t.Fatal("a server starts without the authority's key")
	}
	log, err := os.ReadFile(filepath.Join(f.Dir, "log", "server.log"))
	if err != nil || !strings.Contains(string(log), "ca.key") ||
		!strings.Contains(string(log), "docs/operations.md") {
		t.Errorf("the server's log doesn't say what is missing: %v", err)
	}
	ca := filepath.Join(f.AuthorityDir(), client.CAFileName)
	if err := errors.Join(os.Rename(ca, ca+".lost"), f.StartServer(t.Context())); err != nil {
		t.Fatal(err)
	}
	now, err := client.ReadFleetFile(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.Client, err = client.New(now.URL, now.Token, client.WithCA(now.CA)); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"w1", "w2"} {
		letIn(t, f, w)
	}
}

// load is traffic: calls of the API, commands and requests to a machine, over connections that are
// kept and over new ones.
type load struct {
	f       *fleettest.Fleet
	machine string

	gate          sync.RWMutex // held for writing: pause
	file          client.FleetFile
	kept          *client.Client
	asked, failed atomic.Int64

	mu  sync.Mutex
	why []error
}

func newLoad(f *fleettest.Fleet, machine string) *load { return &load{f: f, machine: machine} }

func (l *load) reread(t *testing.T) {
	t.Helper()
	l.gate.Lock()
	defer l.gate.Unlock()
	file, err := client.ReadFleetFile(l.f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(file.URL, file.Token, client.WithCA(file.CA))
	if err != nil {
		t.Fatal(err)
	}
	l.file, l.kept, l.f.Client = file, c, c
}

func (l *load) pause()  { l.gate.Lock() }
func (l *load) resume() { l.gate.Unlock() }

// start begins the traffic, and returns what ends it.
func (l *load) start(t *testing.T) (stop func()) {
	t.Helper()
	l.reread(t)
	var group errgroup.Group
	done := make(chan struct{})
	for n := range 3 {
		group.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				case <-time.After(20 * time.Millisecond):
					l.ask(t, n)
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); _ = group.Wait() })
}

func (l *load) ask(t *testing.T, n int) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	c, err := client.New(l.file.URL, l.file.Token, client.WithCA(l.file.CA))
	if err == nil && n > 0 {
		c = l.kept
	}
	if err == nil {
		_, err = c.Machine(t.Context(), l.machine)
	}
	if err == nil && n < 2 {
		_, err = c.RunExec(t.Context(), l.machine, client.Exec{Cmd: []string{"true"}})
	}
	if err == nil && n == 2 {
		_, err = l.f.Ledger(t.Context(), l.machine, "append")
	}
	l.asked.Add(1)
	if err != nil {
		l.failed.Add(1)
		l.mu.Lock()
		l.why = append(l.why, err)
		l.mu.Unlock()
	}
}
