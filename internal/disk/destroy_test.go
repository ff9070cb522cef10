package disk_test

import (
	"context"
	"strings"
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
		if err := store.List(ctx, prefix, "",
			func(blob.Entry) bool { n++; return true }); err != nil {
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

	must(disk.Destroy(ctx, store, "disks/a", disk.DestroyOptions{}))
	if _, err := disk.Attach(ctx, store, "disks/a",
		disk.AttachOptions{Generation: 2, Holder: "x"}); !errs.Is(err, errs.NotFound) {
		t.Fatalf("a destroyed disk can be attached: %v", err)
	}
	if _, err := disk.Fork(ctx, store, "disks/a", "c", "disks/z", disk.ForkOptions{}); !errs.Is(err,
		errs.NotFound) {
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
	must(disk.Destroy(ctx, store, "disks/b", disk.DestroyOptions{}))
	if n := count("disks/b/"); n != 0 {
		t.Fatalf("%d objects are left of a disk without forks", n)
	}
	must(disk.Destroy(ctx, store, "disks/b", disk.DestroyOptions{}))
	must(disk.Destroy(ctx, store, "disks/never", disk.DestroyOptions{}))
}

// TestDestroyLeavesOtherDisksAlone destroys a disk, and a directory that is none, above the paths
// of others.
func TestDestroyLeavesOtherDisksAlone(t *testing.T) {
	ctx := t.Context()
	store := memblob.New()
	for _, path := range []string{"disks/a", "disks/a/b", "disks/ab"} {
		if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		d, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: 1, Holder: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(ctx, []byte(path), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Checkpoint(ctx, "head"); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"disks/a", "disks"} {
		if err := disk.Destroy(ctx, store, path, disk.DestroyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	left := 0
	if err := store.List(ctx, "disks/a/", "", func(e blob.Entry) bool {
		if !strings.HasPrefix(e.Key, "disks/a/b/") {
			left++
		}
		return true
	}); err != nil || left != 0 {
		t.Errorf("%d objects are left of the destroyed disk: %v", left, err)
	}
	for _, path := range []string{"disks/a/b", "disks/ab"} {
		d, err := disk.OpenReadOnly(ctx, store, path, "head", disk.ReadOnlyOptions{})
		if err != nil {
			t.Fatalf("%s went with another disk: %v", path, err)
		}
		got := make([]byte, len(path))
		if err := d.ReadAt(ctx, got, 0); err != nil || string(got) != path {
			t.Errorf("%s reads %q: %v", path, got, err)
		}
		_ = d.Close()
	}
}
