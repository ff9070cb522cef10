package e2e

import (
	"context"
	"crypto/md5" //nolint:gosec // what S3 uses for entity tags
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// carelessS3 is an object store that ignores conditions of writes, as some do that claim to speak
// S3.
func carelessS3(t *testing.T) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	objects := map[string][]byte{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch r.Method {
		case http.MethodPut:
			objects[r.URL.Path] = body
		case http.MethodDelete:
			delete(objects, r.URL.Path)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		body, ok := objects[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "<Error><Code>NoSuchKey</Code></Error>")
			return
		}
		sum := md5.Sum(body) //nolint:gosec // as above
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		if r.Method == http.MethodGet {
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// TestServerRefusesWhatItCannotTrust: a store without conditional writes, and a state directory
// with an owner.
func TestServerRefusesWhatItCannotTrust(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 0, NoImage: true})
	dir := t.TempDir()
	server := func(data, store string, env ...string) fleettest.Result {
		return fleettest.Run(t, f.Binary(), append(os.Environ(), env...), nil, "server", "--data",
			data, "--listen", "127.0.0.1:0", "--store", store,
			"--fleet-id", "other", "--operator-token-file", filepath.Join(f.Dir, "operator.token"))
	}
	careless := []string{"AWS_ENDPOINT_URL=" + carelessS3(t).URL, "AWS_ACCESS_KEY_ID=x",
		"AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=us-east-1"}
	refused := server(filepath.Join(dir, "state"), "s3://bucket/prefix", careless...)
	if refused.Code != 1 || !strings.Contains(refused.Stderr, "s3://bucket/prefix") ||
		!strings.Contains(refused.Stderr, "conditional writes") {
		t.Errorf("a store that ignores conditions: %+v", refused)
	}
	doctor := fleettest.Run(t, f.Binary(), append(append(os.Environ(), "SLUICE_DIR="+f.Dir),
		careless...), nil, "doctor", "--host=false", "--store", "s3://bucket/prefix")
	if doctor.Code != 1 || !strings.Contains(doctor.Stdout, "broken") {
		t.Errorf("doctor: %+v", doctor)
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	second := server(filepath.Join(f.Dir, "server"), s.StoreURL)
	if second.Code != 4 || !strings.Contains(second.Stderr, "in use by process") ||
		!strings.Contains(second.Stderr, "try: ") {
		t.Errorf("a second server on the same state: %+v", second)
	}
	foreign := server(filepath.Join(dir, "own"), s.StoreURL)
	if foreign.Code != 4 || !strings.Contains(foreign.Stderr, f.FleetID()) ||
		!strings.Contains(foreign.Stderr, "try: ") {
		t.Errorf("another fleet on the same store: %+v", foreign)
	}
	if workers, err := f.Workers(t.Context()); err != nil || len(workers) != 1 ||
		workers[0].State != "ready" {
		t.Errorf("the first server: %+v, %v", workers, err)
	}
	wrong := fleettest.Run(t, f.Binary(), os.Environ(), nil, "server", "--data", dir, "--listen",
		"127.0.0.1:0", "--store", "ftp://x", "--fleet-id", "x",
		"--operator-token-file", filepath.Join(f.Dir, "operator.token"))
	if wrong.Code != 2 || !strings.Contains(wrong.Stderr,
		"try: use file:///directory or s3://bucket/prefix") {
		t.Errorf("a store of no known kind: %+v", wrong)
	}
}

// TestStoreWithoutSpace fills the store under a writer: the writer stalls, nothing that it
// acknowledged is lost, and it goes on once there is space. A second fleet beside it doesn't
// notice; both are removed although every daemon of the first was killed.
func TestStoreWithoutSpace(t *testing.T) {
	store, grow := smallStore(t)
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 0, Store: store})
	beside := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 0, NoImage: true})
	cfg := fleettest.LedgerConfig()
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "1h") // it appends only when asked
	cfg.Services = append(cfg.Services, api.Service{Name: "filler", Cmd: []string{"sh", "-c",
		"i=0; while dd if=/dev/urandom of=/data/f$i bs=1M count=1 conv=fsync 2>/dev/null; do i=$((i+1)); done; exec sleep 9999"}})
	cfg.CPUs = 1
	m := f.Create("m", "green", "w1", cfg)

	acked := uint64(0)
	stalled := time.Now()
	// appends follow one another until one takes three seconds
	for time.Since(stalled) < 3*time.Second {
		began := time.Now()
		n, err := askLedger(t, f, m.ID, 3*time.Second)
		if err != nil {
			break
		}
		acked, stalled = n, began
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(strings.TrimPrefix(store, "file://"), &fs); err != nil {
		t.Fatal(err)
	}
	if left := fs.Bavail * uint64(fs.Bsize); acked == 0 || left > 4<<20 {
		t.Fatalf("%d records acknowledged, and %d bytes left: this run proves nothing", acked, left)
	}
	f.Eventually(20*time.Second, func() error {
		stalled, err := f.Machine(t.Context(), m.ID)
		if s := stalled.DiskStall; err == nil &&
			(s == nil || !s.Paused || s.Kind != "exhausted" || stalled.Healthy) {
			err = fmt.Errorf("the machine isn't paused for a full store: %+v, healthy %v", s,
				stalled.Healthy)
		}
		return err
	})
	if status := f.Sluice("machine", "status", m.ID); !strings.Contains(status.Stdout,
		"started (paused: disk stalled since ") ||
		!strings.Contains(status.Stdout, "takes no more") {
		t.Errorf("status: %+v", status)
	}
	if refused := f.Sluice("machine", "exec", m.ID, "--", "true"); refused.Code != 125 ||
		!strings.Contains(refused.Stderr, "the machine is paused") {
		t.Errorf("exec in a paused machine: %+v", refused)
	}
	if list := beside.Sluice("worker", "list"); list.Code != 0 ||
		!strings.Contains(list.Stdout, "ready") {
		t.Errorf("the fleet beside it: %+v", list)
	}
	grow()
	f.Eventually(30*time.Second, func() error {
		n, err := askLedger(t, f, m.ID, 5*time.Second)
		if err == nil && n <= acked {
			err = fmt.Errorf("record %d was acknowledged before, now %d", acked, n)
		}
		return err
	})
	f.Eventually(10*time.Second, func() error {
		if events := f.Sluice("machine", "events", m.ID); !strings.Contains(events.Stdout,
			"disk_stall") || !strings.Contains(events.Stdout, "disk_resume") {
			return fmt.Errorf("events: %+v", events)
		}
		return nil
	})
	if err := f.SignalService(t.Context(), m.ID, "filler", "stop"); err != nil {
		t.Fatal(err)
	}
	move := f.Sluice("machine", "migrate", m.ID)
	if move.Code != 0 {
		t.Fatalf("migrate: %+v", move)
	}
	f.WaitHealthy(m.ID, 2*time.Minute)
	if n, err := f.Ledger(t.Context(), m.ID, "verify"); err != nil || n <= acked {
		t.Errorf("record %d was acknowledged, the ledger ends at %d: %v", acked, n, err)
	}
	killDaemons(t, f)
}

// smallStore returns the URL of a store with little space, and what gives it more.
func smallStore(t *testing.T) (url string, grow func()) {
	t.Helper()
	small := t.TempDir()
	if err := unix.Mount("small", small, "tmpfs", 0, "size=40m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Errorf("unmount the store: %v", err)
		}
	})
	return "file://" + small + "/store", func() {
		if err := unix.Mount("small", small, "tmpfs", unix.MS_REMOUNT, "size=400m"); err != nil {
			t.Fatal(err)
		}
	}
}

func askLedger(t *testing.T, f *fleettest.Fleet, ref string, limit time.Duration) (uint64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return f.Ledger(ctx, ref, "append")
}

// killDaemons leaves a fleet as a crash of this machine's user session would: dev down has to find
// its way.
func killDaemons(t *testing.T, f *fleettest.Fleet) {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Server.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	for _, w := range s.Workers {
		if err := w.Process.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}
