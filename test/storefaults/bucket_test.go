package storefaults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestABucketThatIsGoneForAWhile takes a bucket away under a disk, and brings it back: the real
// server's own words. A flush waits for it, the stall names it with its remedy, and a command is
// told at once.
func TestABucketThatIsGoneForAWhile(t *testing.T) {
	server := versitygwtest.Start(t)
	l := newLife(t, server, s3faulttest.Kind{})
	l.must(l.create(l.ctx))
	l.must(l.attach(l.ctx))
	l.must(l.flush(l.ctx))

	here, away := filepath.Join(server.Dir, server.Bucket),
		filepath.Join(server.Dir, "."+server.Bucket)
	l.must(os.Rename(here, away))
	var g errgroup.Group
	g.Go(func() error { return l.flush(l.ctx) })
	deadline := time.Now().Add(patient)
	for stall, _ := l.d.Stalled(); stall == nil ||
		!strings.Contains(stall.Reason, "bucket does not exist") ||
		!strings.Contains(stall.Remedy, "create the bucket"); stall, _ = l.d.Stalled() {
		if time.Now().After(deadline) {
			t.Fatalf("the stall doesn't name the bucket: %+v", stall)
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, err := disk.ReadHead(l.ctx, l.via, diskPath)
	if !errs.Is(err, errs.Denied) || !strings.Contains(errs.RemedyOf(err), "create the bucket") {
		t.Errorf("a command: kind %q, remedy %q: %v", errs.KindOf(err), errs.RemedyOf(err), err)
	}
	l.must(os.Rename(away, here))
	l.must(g.Wait())
	l.must(l.d.Err())
	l.must(l.crash())
}
