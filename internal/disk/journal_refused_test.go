package disk_test

import (
	"reflect"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestAttachWithAnotherDisksJournalChangesNothing: the journal of a disk that crashed is given to
// another disk.
func TestAttachWithAnotherDisksJournalChangesNothing(t *testing.T) {
	const other = "disks/other"
	ctx := t.Context()
	store := newSim().client()
	for _, p := range []string{path, other} {
		if _, err := disk.Create(ctx, store,
			p, disk.CreateOptions{Size: testBlocks * 4096, Bound: testBound}); err != nil {
			t.Fatal(err)
		}
	}
	file := journaltest.New(make([]byte, testJournal), &journaltest.Death{})
	attach := func(p string, gen uint64) (*disk.Disk, error) {
		j, err := journal.New(file, journal.Options{Size: testJournal})
		if err != nil {
			t.Fatal(err)
		}
		return disk.Attach(ctx, store, p,
			disk.AttachOptions{Generation: gen, Holder: "vm", Journal: j})
	}
	d, err := attach(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	d.Abandon()
	before, err := disk.ReadHead(ctx, store, other)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := attach(other, 1); !errs.Is(err, errs.Conflict) || errs.RemedyOf(err) == "" {
		if err == nil {
			d.Abandon()
		}
		t.Errorf("another disk's journal: %v", err)
	}
	if after, err := disk.ReadHead(ctx, store, other); err != nil ||
		!reflect.DeepEqual(before, after) {
		t.Errorf("the refused attach has changed the head: %+v %v", after, err)
	}
	if d, err = attach(path, 2); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if d, err = attach(other, 1); err != nil {
		t.Fatalf("after the journal's disk was closed: %v", err)
	}
	d.Abandon()
}
