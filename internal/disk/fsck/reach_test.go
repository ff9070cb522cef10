package fsck_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestAWrongReferenceToAMapHidesNothingOfIt: who refers to another's map in a wrong way must not
// keep that from being walked for those who are right.
func TestAWrongReferenceToAMapHidesNothingOfIt(t *testing.T) {
	store, ctx := memblob.New(), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := disk.Create(ctx, store, "disks/a", disk.CreateOptions{Size: 1 << 20})
	must(err)
	d, err := disk.Attach(ctx, store, "disks/a",
		disk.AttachOptions{Generation: 1, Holder: "test"})
	must(err)
	must(d.WriteAt(ctx, []byte("content"), 0))
	must(d.Close(ctx))
	h, err := disk.ReadHead(ctx, store, "disks/a")
	must(err)
	codec, err := format.NewCodec()
	must(err)
	reach := fsck.NewReach(store, codec, nil)
	wrong := *h.Root
	wrong.CRC ^= 1
	if err := reach.Map(ctx, h.Lineage, &wrong, h.Size); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a wrong checksum: %v", err)
	}
	other := []format.Ancestor{{Path: "disks/a", UID: "another"}}
	if err := reach.Map(ctx, other, h.Root, h.Size); !errs.Is(err, errs.Corrupt) {
		t.Errorf("another lineage: %v", err)
	}
	if err := reach.Map(ctx, h.Lineage, h.Root, 4096); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a smaller disk: %v", err)
	}
	if err := reach.Map(ctx, h.Lineage, h.Root, h.Size); err != nil {
		t.Errorf("the right reference: %v", err)
	}
	segment := format.Key{Kind: format.KeyLog, Epoch: 1, N: 1}.In("disks/a")
	if !reach.Has(segment) || reach.Maps() != 1 {
		t.Errorf("%d maps walked, the segment is reached: %v", reach.Maps(), reach.Has(segment))
	}
}
