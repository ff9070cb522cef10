package disk_test

import (
	"context"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestDestroyLeavesWhatForksNeed(t *testing.T) {
	ctx := context.Background()
	store := memblob.New()
	count := func(prefix string) (n int) {
		t.Helper()
		if err := store.List(ctx, prefix, "", func(blob.Entry) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := disk.Create(ctx, store, "disks/a", disk.CreateOptions{Size: 1 << 20})
	must(err)
	d, err := disk.Attach(ctx, store, "disks/a", disk.AttachOptions{Generation: 1, Holder: "x"})
	must(err)
	must(d.WriteAt(ctx, []byte("payload"), 0))
	_, err = d.Checkpoint(ctx, "c")
	must(err)
	must(d.Close(ctx))
	_, err = disk.Fork(ctx, store, "disks/a", "c", "disks/b", disk.ForkOptions{})
	must(err)

	must(disk.Destroy(ctx, store, "disks/a"))
	if _, err := disk.Attach(ctx, store, "disks/a", disk.AttachOptions{Generation: 2, Holder: "x"}); !errs.Is(err, errs.NotFound) {
		t.Fatalf("a destroyed disk can be attached: %v", err)
	}
	if _, err := disk.Fork(ctx, store, "disks/a", "c", "disks/z", disk.ForkOptions{}); !errs.Is(err, errs.NotFound) {
		t.Fatalf("a destroyed disk can be forked: %v", err)
	}
	fork, err := disk.Attach(ctx, store, "disks/b", disk.AttachOptions{Generation: 1, Holder: "y"})
	must(err)
	got := make([]byte, 7)
	must(fork.ReadAt(ctx, got, 0))
	must(fork.Close(ctx))
	if string(got) != "payload" {
		t.Fatalf("the fork reads %q", got)
	}
	must(disk.Destroy(ctx, store, "disks/b"))
	if n := count("disks/b/"); n != 0 {
		t.Fatalf("%d objects are left of a disk without forks", n)
	}
	must(disk.Destroy(ctx, store, "disks/b"))
	must(disk.Destroy(ctx, store, "disks/never"))
}
