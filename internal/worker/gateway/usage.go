package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	measureAfter = 10 * time.Second // from a grant on: a machine that is starting comes first
	measureEvery = 15 * time.Minute
	measureAgain = time.Minute // for one that is at its quota, and after an error

	// closingExtra is what a disk may have beyond its quota while it is released: what the machine
	// has in memory, and the map. Else one that is at its quota could not be stopped or moved.
	closingExtra = 2 << 30
)

// usage is what a disk has in the store: as a listing found it, and what was stored since. It is
// safe for concurrent use.
type usage struct {
	mu      sync.Mutex
	path    string // of the disk; "": nobody may write
	quota   int64  // bytes; 0: none
	closing bool
	known   bool  // it was measured
	bytes   int64 // what there is, of which a part may be counted twice
	stored  int64 // of bytes, by requests of this gateway
	full    bool  // something was refused since it was last measured
}

// UsageCounts is what a disk has in the store.
type UsageCounts struct {
	StoredBytes int64 `json:"stored_bytes,omitempty"` // 0: not measured yet
	QuotaBytes  int64 `json:"quota_bytes,omitempty"`  // 0: there is none
	OverQuota   bool  `json:"over_quota,omitempty"`   // it was refused for that
}

// begin starts to count for a disk, or goes on if it is the same.
func (u *usage) begin(path string, quota int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.quota, u.closing = quota, false
	if u.path != path {
		u.path, u.known, u.bytes, u.stored, u.full = path, false, 0, 0, false
	}
}

// close lets the disk have what it takes to be closed.
func (u *usage) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closing = true
}

// admit returns nil if the disk may store n more bytes. Exhausted: it is at its quota; the engine
// waits, as for a store that is full.
func (u *usage) admit(n int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	bound := u.quota
	if u.closing {
		bound += closingExtra
	}
	if u.quota == 0 || u.bytes+int64(n) <= bound {
		return nil
	}
	u.full = true
	return errs.New(errs.Exhausted, "quota: the disk %s has %d bytes in the store, garbage "+
		"included, and may have %d", u.path, u.bytes, u.quota).
		WithRemedy("free what it no longer needs (sluice disk checkpoint rm; then sluice disk " +
			"collect --yes, twice, a grace apart), or raise the worker's --disk-quota-factor")
}

// add notes that n bytes were stored.
func (u *usage) add(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes += int64(n)
	u.stored += int64(n)
}

func (u *usage) counts() UsageCounts {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := UsageCounts{QuotaBytes: u.quota, OverQuota: u.full}
	if u.known {
		c.StoredBytes = u.bytes
	}
	return c
}

// measure lists the disk. What is stored meanwhile may be counted twice, until the next time.
func (u *usage) measure(ctx context.Context, store blob.Store) error {
	u.mu.Lock()
	path, before := u.path, u.stored
	u.mu.Unlock()
	if path == "" {
		return nil
	}
	sum := int64(0)
	if err := store.List(ctx, path+slash, "", func(e blob.Entry) bool {
		sum += e.Size
		return true
	}); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "measure what disk %s has in the store", path)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.path == path {
		u.bytes, u.known, u.full = sum+u.stored-before, true, false
	}
	return nil
}

// pause is how long to wait until the disk is measured because it should be: it has a new writer,
// or is at its quota.
func (u *usage) pause() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known {
		return measureAgain
	}
	return measureAfter
}

// measures measures the disk every so often, and when it should be, until ctx ends.
func (g *Gateway) measures(ctx context.Context) {
	every := measureEvery
	for {
		wait := time.NewTimer(every)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-g.measure:
			wait.Stop()
			if backoff.Sleep(ctx, g.usage.pause()) != nil {
				return
			}
		case <-wait.C:
		}
		every = measureEvery
		if err := g.usage.measure(ctx, g.shared); err != nil && ctx.Err() == nil {
			every = measureAgain
			g.log.WarnContext(ctx, "the disk's quota is held by what this worker saw it store",
				"error", err)
		}
	}
}
