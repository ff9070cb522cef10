package disk_test

import (
	"context"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// hider is a store whose listings lack keys.
type hider struct {
	blob.Store
	hides func(listing int, key string) bool
	n     int
}

func (h *hider) List(ctx context.Context, prefix, after string, yield func(blob.Entry) bool) error {
	h.n++
	return h.Store.List(ctx, prefix, after, func(e blob.Entry) bool {
		return h.hides(h.n, e.Key) ||
			yield(e)
	})
}

// TestAListingWithoutTheHeadIsNotBelieved asks for what goes by listings, of a disk that is there,
// in a store whose listings lack all, its head or its newest map.
func TestAListingWithoutTheHeadIsNotBelieved(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	d := attach(t, s.client(), path, 1, lazy)
	if err := put(t, ctx, d, 0, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	before := len(s.keys(""))
	for _, part := range []string{"", "/head", "/root"} {
		h := &hider{Store: s.client(),
			hides: func(_ int, key string) bool { return strings.Contains(key, part) }}
		err := disk.Destroy(ctx, h, path, disk.DestroyOptions{})
		wantKind(t, "destroy without "+part, err, errs.Unavailable)
		if n := len(s.keys("")); n != before || err == nil ||
			!strings.Contains(err.Error(), "doesn't list it") {
			t.Errorf("%d objects of %d are left: %v", n, before, err)
		}
		r, err := fsck.Check(ctx, h, path, fsck.Options{Unpinned: true})
		if part == "/root" && (err != nil || r.DamageCount == 0) {
			t.Errorf("a check that is not shown a map: %v, %+v", err, r)
		}
		if part == "/root" {
			continue
		}
		wantKind(t, "check without "+part, err, errs.Unavailable)
		_, err = disk.Info(ctx, h, path)
		wantKind(t, "info without "+part, err, errs.Unavailable)
	}
}

// TestADestroyedDiskLeavesNothingThatAListingLackedOnce destroys a disk beside listings of which
// each lacks something else.
func TestADestroyedDiskLeavesNothingThatAListingLackedOnce(t *testing.T) {
	for lacking := 2; lacking <= 5; lacking++ {
		ctx := testCtx(t)
		s := newSim()
		create(t, s.client(), path, 1<<20)
		d := attach(t, s.client(), path, 1, lazy)
		if err := put(t, ctx, d, 0, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Checkpoint(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		h := &hider{Store: s.client(), hides: func(n int, key string) bool { return n == lacking }}
		if err := disk.Destroy(ctx, h, path, disk.DestroyOptions{}); err != nil {
			t.Fatal(err)
		}
		if left := s.keys(""); len(left) != 0 {
			t.Errorf("listing %d was empty: %v are left", lacking, left)
		}
	}
}

// TestADiskWhoseForkIsNotListedIsNotRemoved destroys a disk in a store that shows its fork's
// reference once, and then no more.
func TestADiskWhoseForkIsNotListedIsNotRemoved(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	d := attach(t, s.client(), path, 1, lazy)
	if err := put(t, ctx, d, 0, 7); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	if _, err := disk.Fork(ctx, s.client(), path, "k", "disks/child",
		disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	h := &hider{Store: s.client(), hides: func(n int, key string) bool {
		return n > 1 &&
			strings.Contains(key, "/refs/")
	}}
	if err := disk.Destroy(ctx, h, path, disk.DestroyOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := get(ctx, attach(t, s.client(), "disks/child", 1), 0); n != 7 || err != nil {
		t.Errorf("the fork reads %d, %v", n, err)
	}
}

// TestADestroyThatLeavesObjectsSaysSo destroys a disk of which an object can't be removed, although
// the store says so.
func TestADestroyThatLeavesObjectsSaysSo(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	d := attach(t, s.client(), path, 1, lazy)
	if err := put(t, ctx, d, 0, 7); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	c := s.client()
	c.setJudge(func(_ int, op, key string) verdict {
		if op == "delete" && strings.Contains(key, "/log/") {
			return forget
		}
		return pass
	})
	wantKind(t, "destroy", disk.Destroy(ctx, c, path, disk.DestroyOptions{}), errs.Unavailable)
	c.setJudge(nil)
	if err := disk.Destroy(ctx, c, path, disk.DestroyOptions{}); err != nil ||
		len(s.keys("")) != 0 {
		t.Errorf("%v, %v are left", err, s.keys(""))
	}
}
