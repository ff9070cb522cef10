package gc_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// copied returns a pool with the same objects, at another place, as a backup or a rehearsal of a
// disaster makes it.
func (p *pool) copied() *pool {
	p.t.Helper()
	out := newPool(p.t)
	for _, k := range keysOf(p.t, p.store, "") {
		o, err := p.store.Get(p.ctx, k, blob.All())
		p.must(err)
		_, err = out.store.Put(p.ctx, k, o.Data)
		p.must(err)
	}
	return out
}

// TestACopyOfAPoolLeavesTheLogsAlone goes on with a copy of a pool whose disk has its log in a
// second store, collects it and destroys it, and a copy within the pool too. The disk that was
// copied has acknowledged writes that only its log has.
func TestACopyOfAPoolLeavesTheLogsAlone(t *testing.T) {
	logs := memblob.New()
	open := opens(logs)
	p := newPool(t)
	p.create("disks/a", func(o *disk.CreateOptions) {
		o.LogURL, o.OpenLog, o.Pool = "s3://fast",
			open, "s3://here"
	})
	attaching := func(o *disk.AttachOptions) { o.OpenLog = open; o.Revalidate = -1 }
	d := p.attach("disks/a", attaching)
	p.write(d, 0, 'a')
	copied := p.copied()
	p.write(d, 1, 'b')
	d.Abandon()
	head, err := p.store.Get(p.ctx, "disks/a/head", blob.All())
	p.must(err)
	_, err = p.store.Put(p.ctx, "disks/b/head", head.Data)
	p.must(err)

	other := copied.attach("disks/a", attaching) // which has its own log from here on
	copied.write(other, 2, 'x')
	p.must(other.Close(p.ctx))
	before := keysOf(t, logs, "")
	for i := range 3 {
		r := copied.collect(func(o *gc.Options) { o.OpenLog, o.Pool = open, "s3://there" })
		if i == 0 && (len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "s3://here")) {
			t.Errorf("notes: %q", r.Notes)
		}
	}
	destroy := func(c *pool, at, path string) {
		err := disk.Destroy(p.ctx, c.store, path, disk.DestroyOptions{OpenLog: open, Pool: at})
		if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "disks/a in s3://here") ||
			!strings.Contains(errs.RemedyOf(err), "--lost-log") {
			t.Errorf("destroyed the log of another disk: %v (%s)", err, errs.RemedyOf(err))
		}
		// --lost-log
		p.must(disk.Destroy(p.ctx, c.store, path,
			disk.DestroyOptions{OpenLog: opens(memblob.New()), Pool: at}))
	}
	destroy(copied, "s3://there", "disks/a")
	destroy(p, "s3://here", "disks/b")
	if after := keysOf(t, logs, ""); !slices.Equal(before, after) {
		t.Errorf("the log store had %v, and has %v", before, after)
	}
	again := p.attach("disks/a", attaching)
	p.deviceReads(again, "ab\x00")
	p.must(again.Close(p.ctx))
	p.must(disk.Destroy(p.ctx, p.store, "disks/a",
		disk.DestroyOptions{OpenLog: open, Pool: "s3://here"}))
	if left := keysOf(t, logs, ""); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}
