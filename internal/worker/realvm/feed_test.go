package realvm_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// feed is a control plane for one worker that says what a test wants.
type feed struct {
	mu      sync.Mutex
	set     fleet.AssignmentSet
	changed chan struct{}
	report  fleet.WorkerReport
}

func newFeed() *feed { return &feed{changed: make(chan struct{})} }

func (f *feed) Join(context.Context, fleet.JoinRequest) (fleet.JoinAnswer, error) {
	return fleet.JoinAnswer{Number: 1, StoreURL: storeURL, FleetID: "fleet"}, nil
}

func (f *feed) Assignments(ctx context.Context, w fleet.WorkerID,
	after int64) (fleet.AssignmentSet, error) {
	for {
		f.mu.Lock()
		set, changed := f.set, f.changed
		f.mu.Unlock()
		set.Worker = w
		if set.Revision != after {
			return set, nil
		}
		select {
		case <-ctx.Done():
			return set, errs.Wrap(errs.Unavailable, ctx.Err(), "poll")
		case <-changed:
		}
	}
}

func (f *feed) Report(_ context.Context, r fleet.WorkerReport) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report = r
	f.notifyLocked()
	return nil
}

func (f *feed) notifyLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *feed) assign(as ...fleet.Assignment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set.Assignments = slices.Clone(as)
	f.set.Revision++
	f.notifyLocked()
}

// await waits for a report that satisfies ok, without polling, at most 30 s.
func (f *feed) await(t *testing.T, what string, ok func(fleet.WorkerReport) bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		f.mu.Lock()
		r, changed := f.report, f.changed
		f.mu.Unlock()
		if ok(r) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: not within 30 s; last report %+v", what, r)
		}
	}
}

func (f *feed) awaitPool(t *testing.T, n int) {
	t.Helper()
	f.await(t, fmt.Sprintf("%d VMs ready", n),
		func(r fleet.WorkerReport) bool { return r.PoolReady == n })
}

func (f *feed) awaitPhase(t *testing.T, id fleet.MachineID, g fleet.Generation,
	p fleet.Phase) fleet.VMReport {
	t.Helper()
	var got fleet.VMReport
	f.await(t, fmt.Sprintf("%s at generation %d %s", id, g, p), func(r fleet.WorkerReport) bool {
		for _, v := range r.VMs {
			if v.Machine == id && v.Generation == g && v.Phase == p {
				got = v
				return true
			}
			if v.Machine == id && v.Generation == g && v.Phase == fleet.PhaseFailed {
				t.Fatalf("%s failed while waiting for %s: %+v", id, p, v)
			}
		}
		return false
	})
	return got
}

func newDisk(t *testing.T, id fleet.MachineID) {
	t.Helper()
	if _, err := disk.Fork(t.Context(), shared.store, shared.image.DiskPath,
		shared.image.Checkpoint, "disks/"+string(id), disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
}

// script appends the generation's start to a log on the disk, and serves the disk's files.
const script = `echo started >> /data/log; sync; exec httpd -f -p 8080 -h /data`

func assignment(id fleet.MachineID, g fleet.Generation, want fleet.Want) fleet.Assignment {
	return fleet.Assignment{
		Machine: id, Generation: g, Want: want, Instance: fleet.InstanceID(fmt.Sprintf("i%d", g)),
		Name: "web", App: "shop", Network: "front", NetworkID: 7,
		Address: fleet.PrivateAddress(7, 1, 2),
		Disk:    fleet.StoreDisk(storeURL + "/disks/" + string(id)),
		Config: fleet.MachineConfig{
			Resources: fleet.Resources{CPUMillis: 1000, MemoryMiB: 128},
			Services: []fleet.Service{{
				Name: "web", Cmd: []string{"/bin/sh", "-c", script}, HTTPPort: 8080,
				Check: &fleet.Check{Kind: fleet.CheckHTTP, Port: 8080, Path: "/log"},
			}},
			Stop: fleet.StopConfig{Timeout: time.Second},
		},
	}
}

// fetch asks the machine's HTTP service, by way of the worker's proxy and the platform.
func (h *host) fetch(id fleet.MachineID, path string) string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet,
		h.api+"/machines/"+string(id)+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	client := identitytest.Client(h.t, h.ca.Self(), identity.IsWorker(h.name))
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		h.t.Fatalf("%s: %s %s %v", path, resp.Status, b, err)
	}
	return string(b)
}
