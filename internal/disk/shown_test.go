package disk_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestDocumentsThatWereOnlyAcknowledgedAreWrittenAgain has a store say that it has stored
// checkpoints, references, heads of forks and what a restore saves, and not do it the first time.
func TestDocumentsThatWereOnlyAcknowledgedAreWrittenAgain(t *testing.T) {
	for _, v := range []verdict{forget, halve} {
		ctx := testCtx(t)
		s := newSim()
		create(t, s.client(), path, 1<<20)
		c := s.client()
		d := attach(t, c, path, 1, lazy)
		if err := put(t, ctx, d, 0, 1); err != nil {
			t.Fatal(err)
		}
		what := map[string]verdict{"/ckpt/": v, "/refs/": v, "/pins/": v}
		if v == forget {
			// a head that is cut is refused by whoever reads it, and nobody knows whose it is
			what["child/head"] = v
		}
		l := lie(1, what)
		c.setJudge(l.judge)
		if _, err := d.Checkpoint(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		l.told["/ckpt/"] = 0
		if _, err := disk.CheckpointClosed(ctx, c, path, "closed"); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.Fork(ctx, c, path, "k", "disks/child", disk.ForkOptions{}); err != nil {
			t.Fatal(err)
		}
		l.told["/ckpt/"] = 0
		_, saved, err := disk.Restore(ctx, c, path, "k")
		if err != nil {
			t.Fatal(err)
		}
		c.setJudge(nil)
		for part := range what {
			if l.told[part] == 0 {
				t.Errorf("nothing was lost of %s", part)
			}
		}
		list, err := disk.ListCheckpoints(ctx, c, path)
		if err != nil || len(list) != 3 {
			t.Errorf("%d checkpoints, %v; %s and two others were made", len(list), err, saved)
		}
		if n := len(s.keys("/refs/")); n != 1 {
			t.Errorf("%d references", n)
		}
		if n, err := get(ctx, attach(t, c, "disks/child", 1), 0); n != 1 || err != nil {
			t.Error(n, err)
		}
	}
}

// TestWhatAListingDoesNotShowIsNotMade makes what others find by listing in a store that doesn't
// list it.
func TestWhatAListingDoesNotShowIsNotMade(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	if _, err := disk.CheckpointClosed(ctx, c, path, "k"); err != nil {
		t.Fatal(err)
	}
	d := attach(t, c, path, 1, lazy,
		func(o *disk.AttachOptions) { o.StallTimeout = 200 * time.Millisecond })
	c.setJudge(func(_ int, op, _ string) verdict {
		if op == "list" {
			return forget
		}
		return pass
	})
	_, err := d.Checkpoint(ctx, "unseen")
	wantKind(t, "checkpoint", err, errs.Unavailable)
	if err == nil || !strings.Contains(err.Error(), "doesn't list") {
		t.Errorf("%v doesn't say why", err)
	}
	c.setJudge(nil)
	mustClose(t, d)
}
