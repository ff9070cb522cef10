package disk_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func openJournal(t *testing.T, name string, size int64) *journal.Journal {
	t.Helper()
	j, err := journal.Open(filepath.Join(t.TempDir(), name), journal.Options{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// TestSetBoundWhileAttached changes the mode of a disk in use, there and back, with writes under
// way.
func TestSetBoundWhileAttached(t *testing.T) {
	ctx, store := t.Context(), memblob.New()
	create(t, store, path, 64<<20)
	create(t, store, "disks/other", 1<<20)
	d := attach(t, store, path, 1, func(o *disk.AttachOptions) { o.SealInterval = time.Hour })
	j := openJournal(t, "j", 2<<20)
	put := func(block int64, b byte) {
		t.Helper()
		if err := d.WriteAt(ctx, bytes.Repeat([]byte{b}, 4096), block*4096); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1) // not flushed: the store has it before the journal acknowledges anything
	for range 2 {
		if err := d.SetBound(ctx, time.Hour, j); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 2)
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if s := d.Stats(); s.Acknowledges != disk.AcknowledgedByJournal {
		t.Fatalf("flushes are acknowledged by %s", s.Acknowledges)
	}
	before := d.Stats().LogObjects
	put(2, 3)
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := d.Stats().LogObjects; n != before {
		t.Errorf("a flush by the journal took %d log objects", n-before)
	}
	if h := d.Head(); h.Mode != format.ModeBounded || h.BoundMS != 3_600_000 {
		t.Errorf("%s %d", h.Mode, h.BoundMS)
	}
	if err := d.SetBound(ctx, 2*time.Second, nil); err != nil { // of the journal that it has
		t.Fatal(err)
	}
	put(3, 4)
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.SetBound(ctx, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	d.Abandon() // at once, and without the journal
	d = attach(t, store, path, 2)
	for i := range int64(4) {
		got := make([]byte, 4096)
		if err := d.ReadAt(ctx, got, i*4096); err != nil || got[0] != byte(i+1) {
			t.Errorf("block %d begins with %d: %v", i, got[0], err)
		}
	}
	if h := d.Head(); h.Mode != format.ModeDurable || h.BoundMS != 0 {
		t.Errorf("%s %d", h.Mode, h.BoundMS)
	}
	other := attach(t, store, "disks/other", 1) // the journal is nobody's
	if err := other.SetBound(ctx, time.Second, j); err != nil {
		t.Error(err)
	}
	if err := d.SetBound(ctx, time.Second, j); !errs.Is(err, errs.Conflict) {
		t.Errorf("with another disk's journal: %v", err)
	}
	for _, d := range []*disk.Disk{d, other} {
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if h, err := disk.ReadHead(ctx, store, path); err != nil || h.Mode != format.ModeDurable {
		t.Errorf("a refused change has changed the head: %+v %v", h, err)
	}
}

func TestSetBoundRefusals(t *testing.T) {
	ctx, store := t.Context(), memblob.New()
	create(t, store, path, 64<<20)
	d := attach(t, store, path, 1)
	small := openJournal(t, "small", 64<<10)
	broken, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	unwritable, err := journal.New(broken, journal.Options{Size: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		bound time.Duration
		j     *journal.Journal
		kind  errs.Kind
	}{
		"no journal":             {time.Second, nil, errs.Invalid},
		"too short a bound":      {time.Millisecond, small, errs.Invalid},
		"too small a journal":    {time.Second, small, errs.Invalid},
		"a journal that is none": {time.Second, unwritable, errs.Unavailable},
	} {
		if err := d.SetBound(ctx, x.bound, x.j); !errs.Is(err, x.kind) ||
			errs.RemedyOf(err) == "" && x.kind == errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h := d.Head(); h.Mode != format.ModeDurable {
		t.Errorf("a refused change has changed the mode to %s", h.Mode)
	}
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.SetBound(ctx, time.Second, openJournal(t, "j", 2<<20)); !errs.Is(err,
		errs.Invalid) {
		t.Errorf("of a closed disk: %v", err)
	}
	if h, err := disk.ReadHead(ctx, store, path); err != nil || h.Mode != format.ModeDurable ||
		h.State != format.StateClosed {
		t.Errorf("%+v %v", h, err)
	}
}
