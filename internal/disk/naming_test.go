package disk_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestZombieLeavesNoName lets a writer that was replaced name what it has committed: it may look
// before it sends the name, or be replaced after that, when the name and the swap of the head are
// on their way together.
func TestZombieLeavesNoName(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		ctx := testCtx(t)
		s := newSim()
		create(t, s.client(), path, 1<<20)
		c := s.client()
		quiet := func(o *disk.AttachOptions) { o.Revalidate = -1 }
		zombie := attach(t, c, path, 1, quiet)
		if err := put(t, ctx, zombie, 0, 1); err != nil {
			t.Fatal(err)
		}
		var next *disk.Disk
		if !meanwhile {
			next = attach(t, s.client(), path, 2)
		}
		named := false
		c.setJudge(func(_ int, op, key string) verdict {
			if meanwhile && next == nil && op == "match" {
				next = attach(t, s.client(), path, 2)
			}
			named = named || op == "absent" && key == path+"/ckpt/x"
			return pass
		})
		_, err := zombie.Checkpoint(ctx, "x")
		wantKind(t, "checkpoint", err, errs.Fenced)
		if keys := s.keys("/ckpt/"); named != meanwhile || len(keys) != 0 {
			t.Errorf("replaced meanwhile %v: named %v, left %v", meanwhile, named, keys)
		}
		mustClose(t, next)
	}
}

// TestCheckpointOfAStalledHead lets the name arrive and the swap not. What is there by that name is
// a state of the disk.
func TestCheckpointOfAStalledHead(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, func(o *disk.AttachOptions) {
		o.Revalidate, o.StallTimeout = -1,
			200*time.Millisecond
	})
	if err := put(t, ctx, d, 0, 7); err != nil {
		t.Fatal(err)
	}
	c.setJudge(func(_ int, op, _ string) verdict {
		if op == "match" {
			return refuse
		}
		return pass
	})
	_, err := d.Checkpoint(ctx, "x")
	wantKind(t, "checkpoint", err, errs.Unavailable)
	c.setJudge(nil)
	_, err = d.Checkpoint(ctx, "x")
	wantKind(t, "the same name again", err, errs.Exists)
	if _, err := d.Checkpoint(ctx, "y"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	for _, name := range []string{"x", "y"} {
		r, err := disk.OpenReadOnly(ctx, s.client(), path, name, disk.ReadOnlyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := get(ctx, r, 0); n != 7 || err != nil {
			t.Errorf("checkpoint %s has %d, %v", name, n, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckpointRequests counts them, with nothing new and with something new.
func TestCheckpointRequests(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, func(o *disk.AttachOptions) {
		o.Revalidate, o.SealInterval, o.CheckpointInterval = -1, time.Hour, time.Hour
	})
	// an attach has something left to do
	for before := -1; before != c.requests(); time.Sleep(20 * time.Millisecond) {
		before = c.requests()
	}
	checkpoint := func(name string) func() {
		return func() {
			if _, err := d.Checkpoint(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	// head, name, head and a listing of the name
	if n := requestsOf(c, checkpoint("clean")); n != 4 {
		t.Errorf("with nothing new: %d requests", n)
	}
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if n := requestsOf(c, checkpoint("changed")); n != 11 {
		// log object; pages, root, head and a look at the log object; head, name and a look at the
		// map; head and a listing of the name
		t.Errorf("with a write: %d requests", n)
	}
	_, err := d.Checkpoint(ctx, "clean")
	wantKind(t, "a name that is taken", err, errs.Exists)
	mustClose(t, d)
}
