package gc_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keepOpen is a store that those who open it may close.
type keepOpen struct{ blob.Store }

func (keepOpen) Close() error { return nil }

func opens(s blob.Store) disk.OpenStore {
	return func(context.Context, string) (blob.Store, error) { return keepOpen{s}, nil }
}

func keysOf(t *testing.T, s blob.Store, prefix string) (keys []string) {
	t.Helper()
	if err := s.List(t.Context(), prefix, "",
		func(e blob.Entry) bool { keys = append(keys, e.Key); return true }); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestCollectsALogStore collects beside a writer whose predecessors have died, and beside another
// pool's disk that has its log in the same store.
func TestCollectsALogStore(t *testing.T) {
	logs := memblob.New()
	open := opens(logs)
	withLog := func(o *disk.CreateOptions) { o.LogURL, o.OpenLog = "s3://fast", open }
	attaching := func(o *disk.AttachOptions) { o.OpenLog = open; o.Revalidate = -1 }
	collecting := func(o *gc.Options) { o.OpenLog = open }
	p, foreign := newPool(t), newPool(t)
	p.create("disks/a", withLog)
	p.create("disks/plain")
	foreign.create("disks/a", withLog)
	f := foreign.attach("disks/a", attaching)
	foreign.write(f, 0, 'f')
	f.Abandon()
	foreignKeys := keysOf(t, logs, "")

	zombie := p.attach("disks/a", attaching)
	p.write(zombie, 0, 'a')
	d := p.attach("disks/a", attaching)
	// what was replayed is written in the background, and nothing else is to be
	for d.Stats().MapWrites == 0 {
		time.Sleep(time.Millisecond)
	}
	for i := range byte(8) {
		p.write(d, int64(i)%4, 'b'+i)
	}
	p.must(d.Settle(p.ctx)) // the map has all of that
	p.write(d, 1, 'z')      // and not this
	for range 3 {
		p.collect(collecting)
	}
	h, err := disk.ReadHead(p.ctx, p.store, "disks/a")
	p.must(err)
	var fences, objects int
	for _, k := range keysOf(t, logs, h.UID+"/log/") {
		o, err := logs.Get(p.ctx, k, blob.All())
		p.must(err)
		lh, err := format.DecodeLogHeader(o.Data)
		p.must(err)
		if lh.IsFence() {
			fences++
		} else if objects++; lh.Epoch != h.Epoch || lh.Seq != h.Log.Seq {
			t.Errorf("%s is left, before the log position %+v", k, h.Log)
		}
	}
	if fences != 1 || objects != 1 {
		t.Errorf("%d fences and %d log objects are left, want one of each", fences, objects)
	}
	for _, k := range foreignKeys {
		if !slices.Contains(keysOf(t, logs, ""), k) {
			t.Errorf("%s of another pool was deleted", k)
		}
	}
	if err := zombie.WriteAt(p.ctx, bytes.Repeat([]byte{'x'}, disk.BlockSize), 0); err == nil {
		if err = zombie.Flush(p.ctx); !errs.Is(err, errs.Fenced) {
			t.Errorf("a zombie after a collection: %v", err)
		}
	}
	d.Abandon()
	last := p.attach("disks/a", attaching)
	got := make([]byte, 4*disk.BlockSize)
	p.must(last.ReadAt(p.ctx, got, 0))
	for i, want := range "fzhi" {
		if got[i*disk.BlockSize] != byte(want) {
			t.Errorf("block %d has %c, want %c", i, got[i*disk.BlockSize], want)
		}
	}
	p.must(last.Close(p.ctx))
	for range 3 {
		p.collect(collecting)
	}
	r, err := fsck.Check(p.ctx, p.store, "disks/a", fsck.Options{Data: true, OpenLog: open})
	p.must(err)
	if r.DamageCount > 0 || r.Garbage().Objects > 0 || r.LogStore == "" || r.Fences != 2 {
		t.Errorf("%+v", r)
	}
}

// TestStopsAtALogStoreItCannotRead changes nothing when a log store is away, is another one, or
// can't be opened.
func TestStopsAtALogStoreItCannotRead(t *testing.T) {
	logs := memblob.New()
	open := opens(logs)
	p := newPool(t)
	p.create("disks/a", func(o *disk.CreateOptions) { o.LogURL, o.OpenLog = "s3://fast", open })
	for i := range byte(3) {
		d := p.attach("disks/a", func(o *disk.AttachOptions) { o.OpenLog = open })
		p.write(d, 0, 'a'+i)
		p.must(d.Close(p.ctx))
	}
	p.collect(func(o *gc.Options) { o.OpenLog = open })
	before, logsBefore := keysOf(t, p.store, ""), keysOf(t, logs, "")
	for what, c := range map[string]struct {
		open disk.OpenStore
		kind errs.Kind
	}{
		"no opener":      {nil, errs.Unsupported},
		"an empty store": {opens(memblob.New()), errs.Corrupt},
		"away": {opens(decorate.Faults(logs, decorate.FaultConfig{Refused: 1})),
			errs.Unavailable},
	} {
		r, err := p.tryCollect(func(o *gc.Options) { o.OpenLog = c.open })
		if !errs.Is(err, c.kind) || r != nil || !strings.Contains(err.Error(), "s3://fast") {
			t.Errorf("%s: %v, report %+v", what, err, r)
		}
		if !slices.Equal(before, keysOf(t, p.store, "")) ||
			!slices.Equal(logsBefore, keysOf(t, logs, "")) {
			t.Errorf("%s: something was deleted", what)
		}
	}
	if r := p.collect(func(o *gc.Options) { o.OpenLog = open }); r.Freed["log"].Objects == 0 {
		t.Errorf("nothing freed: %+v", r)
	}
}
