package disk_test

import (
	"context"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestForkOfACheckpointThatGoes removes the checkpoint right before the fork's head is written: no
// head is left, which would refer to what a collector may delete.
func TestForkOfACheckpointThatGoes(t *testing.T) {
	store := memblob.New()
	if _, err := disk.Create(t.Context(), store, path,
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.CheckpointClosed(t.Context(), store, path, "c"); err != nil {
		t.Fatal(err)
	}
	slow := decorate.Intercept(store, func(ctx context.Context, op decorate.Op, key string) error {
		if op == decorate.OpPutIfAbsent && key == "disks/child/head" {
			return disk.RemoveCheckpoint(ctx, store, path, "c")
		}
		return nil
	})
	if _, err := disk.Fork(t.Context(), slow, path, "c", "disks/child",
		disk.ForkOptions{}); !errs.Is(err, errs.NotFound) {
		t.Errorf("fork: %v", err)
	}
	if _, err := disk.ReadHead(t.Context(), store, "disks/child"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the child's head: %v", err)
	}
}

// TestAForkThatTakesTooLong leaves no head either: a collector may be about to remove its
// reference.
func TestAForkThatTakesTooLong(t *testing.T) {
	store := memblob.New()
	if _, err := disk.Create(t.Context(), store, path,
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.CheckpointClosed(t.Context(), store, path, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Fork(t.Context(), store, path, "c", "disks/child",
		disk.ForkOptions{Limit: 1}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("fork: %v", err)
	}
	if _, err := disk.ReadHead(t.Context(), store, "disks/child"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the child's head: %v", err)
	}
	if _, err := disk.Fork(t.Context(), store, path, "c", "disks/child",
		disk.ForkOptions{}); err != nil {
		t.Errorf("fork again: %v", err)
	}
}
