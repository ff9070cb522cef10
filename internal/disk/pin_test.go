package disk_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestReaderHoldsAPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newSim()
		create(t, s.client(), path, 1<<20)
		d := attach(t, s.client(), path, 1, small)
		if err := d.WriteAt(ctx, []byte("payload"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Checkpoint(ctx, "c"); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		r, err := disk.OpenReadOnly(ctx, s.client(), path, "c",
			disk.ReadOnlyOptions{Holder: "reader-1"})
		if err != nil {
			t.Fatal(err)
		}
		pins, err := disk.ListPins(ctx, s.client(), path)
		if err != nil || len(pins) != 1 || pins[0].All || pins[0].Map == nil ||
			pins[0].Map.Checkpoint != "c" || pins[0].Holder != "reader-1" {
			t.Fatalf("%v: %+v", err, pins)
		}
		nonce := pins[0].Nonce
		time.Sleep(time.Hour) // it renews
		if pins, err = disk.ListPins(ctx, s.client(), path); err != nil || len(pins) != 1 ||
			pins[0].Nonce == nonce {
			t.Fatalf("not renewed: %v: %+v", err, pins)
		}
		got := make([]byte, 7)
		if err := r.ReadAt(ctx, got, 0); err != nil || string(got) != "payload" {
			t.Fatalf("%q: %v", got, err)
		}
		if err := disk.Unpin(ctx, s.client(), path, pins[0].ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if err := r.ReadAt(ctx, got, 0); !errs.Is(err, errs.Conflict) || errs.RemedyOf(err) == "" {
			t.Fatalf("read on without a pin: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}

		// One that can't reach the store stops before a collector may think that it is dead.
		c := s.client()
		if r, err = disk.OpenReadOnly(ctx, c, path, "", disk.ReadOnlyOptions{}); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		c.setJudge(func(int, string, string) verdict { return refuse })
		time.Sleep(14 * time.Minute)
		if err := r.ReadAt(ctx, got, 0); err != nil && errs.Is(err, errs.Conflict) {
			t.Fatalf("given up too early: %v", err)
		}
		time.Sleep(time.Minute)
		if err := r.ReadAt(ctx, got, 0); !errs.Is(err, errs.Conflict) {
			t.Fatalf("read on with a pin that has ended: %v", err)
		}
	})
}

func TestPinsLeaveNothingBehind(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	d := attach(t, s.client(), path, 1, small)
	if _, err := d.Checkpoint(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	for _, name := range []string{"", "c"} {
		r, err := disk.OpenReadOnly(ctx, s.client(), path, name, disk.ReadOnlyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := disk.OpenReadOnly(ctx, s.client(), path, "nope",
		disk.ReadOnlyOptions{}); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if _, err := disk.OpenReadOnly(ctx, s.client(), "disks/nope", "",
		disk.ReadOnlyOptions{}); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if _, _, err := disk.Restore(ctx, s.client(), path, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.PinMap(ctx, s.client(), path, "p", "c", "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.PinMap(ctx, s.client(), path, "p", "", "me"); !errs.Is(err, errs.Exists) {
		t.Fatal(err)
	}
	for _, bad := range []string{"lease-x", "head", "machine.json", "a/b", ""} {
		if _, err := disk.PinMap(ctx, s.client(), path, bad, "", "me"); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("pin name %q: %v", bad, err)
		}
	}
	if keys := s.keys("/pins/"); len(keys) != 1 || keys[0] != path+"/pins/p" {
		t.Errorf("left: %v", keys)
	}
	if err := disk.Unpin(ctx, s.client(), path, "q"); !errs.Is(err, errs.NotFound) ||
		!strings.Contains(errs.RemedyOf(err), "p") {
		t.Fatal(err)
	}
	if err := disk.Unpin(ctx, s.client(), path, "p"); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreKeepsItsPinInDoubt loses the answer to the swap for good: it may arrive later, and
// what it would make the head refer to must stay until then.
func TestRestoreKeepsItsPinInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newSim()
		create(t, s.client(), path, 1<<20)
		if _, err := disk.CheckpointClosed(ctx, s.client(), path, "c"); err != nil {
			t.Fatal(err)
		}
		c := s.client()
		swapped := false
		c.setJudge(func(_ int, op, key string) verdict {
			if swapped = swapped || (key == path+"/head" && op != "get"); swapped {
				return refuse
			}
			return pass
		})
		if _, _, err := disk.Restore(ctx, c, path, "c"); !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
		pins, err := disk.ListPins(ctx, s.client(), path)
		if err != nil || len(pins) != 1 || !pins[0].All || pins[0].LeaseMS == 0 {
			t.Fatalf("%v: %+v", err, pins)
		}
	})
}

// TestCheckpointLooksAgain moves the head while a checkpoint of it is on its way, as slow as it
// takes for two marks.
func TestCheckpointLooksAgain(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		ctx := testCtx(t)
		s := newSim()
		create(t, s.client(), path, 1<<20)
		d := attach(t, s.client(), path, 1, small)
		if err := d.WriteAt(ctx, []byte("old"), 0); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		moved := false
		c := s.client()
		c.setJudge(func(_ int, _, key string) verdict {
			if strings.Contains(key, "/ckpt/") && !moved {
				moved = true
				d := attach(t, s.client(), path, 2, small)
				if err := d.WriteAt(ctx, []byte("new"), 0); err != nil {
					t.Error(err)
				}
				if err := d.Settle(ctx); err != nil {
					t.Error(err)
				}
				if !reopened {
					mustClose(t, d)
				}
			}
			return pass
		})
		_, err := disk.CheckpointClosed(ctx, c, path, "c")
		if reopened {
			if keys := s.keys("/ckpt/"); !errs.Is(err, errs.Conflict) || len(keys) != 0 {
				t.Errorf("of a disk that is open by now: %v, left %v", err, keys)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := disk.OpenReadOnly(ctx, s.client(), path, "c", disk.ReadOnlyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 3)
		if err := r.ReadAt(ctx, got, 0); err != nil || string(got) != "new" {
			t.Errorf("the checkpoint names %q, which the head has left: %v", got, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPathsThatWouldBeMistaken(t *testing.T) {
	ctx := testCtx(t)
	store := memblob.New()
	for _, p := range []string{"disks/a/ckpt", "disks/a/refs", "disks/a/pins", "disks/a/boot/of"} {
		if _, err := disk.Create(ctx, store, p, disk.CreateOptions{Size: 1 << 20}); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("created %s: %v", p, err)
		}
	}
}

func TestRemoveCheckpoint(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	if _, err := disk.CheckpointClosed(ctx, s.client(), path, "c"); err != nil {
		t.Fatal(err)
	}
	if err := disk.RemoveCheckpoint(ctx, s.client(), path, "d"); !errs.Is(err, errs.NotFound) ||
		!strings.Contains(errs.RemedyOf(err), "c") {
		t.Fatal(err)
	}
	if err := disk.RemoveCheckpoint(ctx, s.client(), path, "c"); err != nil {
		t.Fatal(err)
	}
	if err := disk.RemoveCheckpoint(ctx, s.client(), path, "c"); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
}
