package fsck_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestCollectorsSpareWhatIsChecked removes a checkpoint and collects twice once a check has read
// the map of it, and before it looks at what that refers to. Without a pin the check finds damage
// that there never was.
func TestCollectorsSpareWhatIsChecked(t *testing.T) {
	for _, unpinned := range []bool{false, true} {
		ctx, store := testCtx(t), memblob.New()
		w := &world{t: t, store: store}
		if _, err := disk.Create(ctx, store, parent, disk.CreateOptions{Size: size}); err != nil {
			t.Fatal(err)
		}
		d := w.attach(store, parent, 1)
		for i, letter := range []byte("ab") {
			if err := d.WriteAt(ctx, []byte(strings.Repeat(string(letter), 64<<10)),
				0); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if _, err := d.Checkpoint(ctx, "old"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := d.Close(ctx); err != nil {
			t.Fatal(err)
		}
		now := time.Now().UTC()
		var once sync.Once
		meddling := decorate.Intercept(store,
			func(ctx context.Context, op decorate.Op, key string) (err error) {
				if op != decorate.OpGet || !strings.Contains(key, "/log/") {
					return nil
				}
				once.Do(func() {
					err = disk.RemoveCheckpoint(ctx, store, parent, "old")
					for range 2 {
						if err == nil {
							_, err = gc.Collect(ctx, store,
								gc.Options{Grace: time.Hour, Now: func() time.Time { return now }})
						}
						now = now.Add(time.Hour)
					}
				})
				return err
			})
		r, err := fsck.Check(ctx, meddling, parent, fsck.Options{Unpinned: unpinned})
		if err != nil {
			t.Fatal(err)
		}
		if (r.DamageCount > 0) != unpinned || r.Pins > 0 {
			t.Errorf("unpinned %v: %d damages, %d pins: %+v", unpinned, r.DamageCount,
				r.Pins, r.Damage)
		}
		if pins, err := disk.ListPins(ctx, store, parent); err != nil || len(pins) > 0 {
			t.Errorf("pins left: %v, %v", pins, err)
		}
	}
}

// TestALostPinEndsTheCheck takes the pin away while the check runs: what it found may be what a
// collector left.
func TestALostPinEndsTheCheck(t *testing.T) {
	ctx, store := testCtx(t), memblob.New()
	w := &world{t: t, store: store}
	if _, err := disk.Create(ctx, store, parent, disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	d := w.attach(store, parent, 1)
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	slow := decorate.Intercept(store, func(ctx context.Context, op decorate.Op, key string) error {
		if op == decorate.OpGet && strings.HasSuffix(key, "/root") {
			pins, err := disk.ListPins(ctx, store, parent)
			for _, p := range pins {
				err = disk.Unpin(ctx, store, parent, p.ID)
			}
			time.Sleep(500 * time.Millisecond) // a third of a lease, and the renewal
			return err
		}
		return nil
	})
	if _, err := fsck.Check(ctx, slow, parent, fsck.Options{PinLease: time.Second}); !errs.Is(err,
		errs.Conflict) {
		t.Errorf("a check whose pin was taken away: %v", err)
	}
	if _, err := fsck.Check(ctx, store, "disks/none", fsck.Options{}); !errs.Is(err,
		errs.NotFound) {
		t.Errorf("no disk: %v", err)
	}
	if pins, err := disk.ListPins(ctx, store, "disks/none"); err != nil || len(pins) > 0 {
		t.Errorf("pins of no disk: %v, %v", pins, err)
	}
}
