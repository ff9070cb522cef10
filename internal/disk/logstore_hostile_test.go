package disk_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestLookingAtALogDoesNotBringItBack has a disk destroyed between the two requests that look at its log store, and the
// destroy cut short.
func TestLookingAtALogDoesNotBringItBack(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	d := p.attach(t, 1)
	want := make([]byte, 1<<20)
	for i := range 4 {
		fill(want[i*4096:][:4096], uint64(i)+1)
		if err := d.WriteAt(ctx, want[i*4096:][:4096], int64(i)*4096); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d.Abandon() // only the log has that
	head, err := disk.ReadHead(ctx, p.main.client(), path)
	if err != nil {
		t.Fatal(err)
	}
	looks := p.log.client()
	looks.judge = func(n int, op, key string) verdict {
		if n == 2 { // it has seen that the identity is there
			destroys := p.log.client()
			deletes := 0
			destroys.judge = func(_ int, op, _ string) verdict {
				if op == "delete" {
					if deletes++; deletes > 3 { // the identity and a part of the log
						return dieBefore
					}
				}
				return pass
			}
			cut, cancel := shortCtx(t)
			defer cancel()
			if err := disk.Destroy(cut, p.main.client(), path, disk.DestroyOptions{OpenLog: opener(destroys)}); err == nil {
				t.Error("the destroy was not cut")
			}
		}
		return pass
	}
	_, _ = disk.InspectLog(ctx, head, opener(looks))
	err = p.tryAttach(t, 2, p.log.client())
	if !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), logURL) {
		t.Errorf("attached to a log of which a part is gone: %v", err)
	}
	if err := disk.Destroy(ctx, p.main.client(), path, disk.DestroyOptions{OpenLog: opener(p.log.client())}); err != nil {
		t.Fatal(err)
	}
	if left := append(p.main.keys(""), p.log.keys("")...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func shortCtx(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 300*time.Millisecond)
}
