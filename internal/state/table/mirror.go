package table

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 5 * time.Second
	// nudgeAfter is how long WaitFor trusts the watch. A watch says nothing of revisions that don't touch
	// its prefix, so after that the mirror lists again, and so learns of them.
	nudgeAfter = 250 * time.Millisecond
)

// Mirror is a copy in memory of the keys under some prefixes, kept up to date by a watch. It lags behind the
// store, by WaitFor's measure no further than one's own writes; a decision made on it must therefore commit
// under conditions. Its revisions ascend, unless the store itself went back. Run must run for it to move.
// It is safe for concurrent use.
type Mirror struct {
	store    state.Store
	log      *slog.Logger
	root     string   // what all prefixes have in common, and what is listed and watched
	prefixes []string // what is kept
	nudges   chan struct{}

	mu      sync.Mutex
	view    *View
	changed chan struct{} // closed when view is replaced
}

// NewMirror returns a mirror of the keys under prefixes, or of all keys where there are none. It lists and
// watches what the prefixes have in common, so that one revision holds for all of them.
func NewMirror(store state.Store, log *slog.Logger, prefixes ...string) *Mirror {
	if len(prefixes) == 0 {
		prefixes = []string{""}
	}
	return &Mirror{
		store: store, log: log, root: commonPrefix(prefixes), prefixes: slices.Clone(prefixes),
		nudges: make(chan struct{}, 1), view: &View{}, changed: make(chan struct{}),
	}
}

func commonPrefix(all []string) string {
	low, high := slices.Min(all), slices.Max(all)
	n := 0
	for n < len(low) && n < len(high) && low[n] == high[n] {
		n++
	}
	return low[:n]
}

// Snapshot returns the newest view. It costs nothing and never blocks on the store.
func (m *Mirror) Snapshot() *View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

// Changed returns a channel that is closed when a newer view than the present one is there. Take it before
// Snapshot, and no change is missed between the two.
func (m *Mirror) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// WaitFor waits until the view is at revision or later. With the revision of one's own Commit, one reads
// one's own write. The error, of kind Unavailable, is that ctx ended first.
func (m *Mirror) WaitFor(ctx context.Context, revision int64) error {
	for {
		changed := m.Changed()
		if m.Snapshot().Revision() >= revision {
			return nil
		}
		timer := time.NewTimer(nudgeAfter)
		select {
		case <-changed:
		case <-timer.C:
			select {
			case m.nudges <- struct{}{}:
			default: // one is waiting already
			}
		case <-ctx.Done():
			timer.Stop()
			return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for revision %d of the state", revision)
		}
		timer.Stop()
	}
}

// WaitReady waits for the first listing.
func (m *Mirror) WaitReady(ctx context.Context) error { return m.WaitFor(ctx, 1) }

// Run keeps the mirror up to date until ctx ends, and then returns nil. Whatever happens to the watch, it
// goes on: where the watch broke off if it can, by a new listing if it can't. Run it once.
func (m *Mirror) Run(ctx context.Context) error {
	backoff, relist := backoffMin, true
	for {
		before := m.Snapshot().Revision()
		err := m.follow(ctx, relist)
		if ctx.Err() != nil {
			return nil
		}
		after := m.Snapshot().Revision()
		relist = after == 0 || errors.Is(err, errNudged) || !errs.Is(err, errs.Unavailable)
		if errors.Is(err, errNudged) || after != before {
			backoff = backoffMin
		}
		if !errors.Is(err, errNudged) {
			m.log.WarnContext(ctx, "state watch broke off", "error", err, "revision", after, "lists_again", relist)
			if pause(ctx, backoff) != nil {
				return nil
			}
			backoff = min(2*backoff, backoffMax)
		}
	}
}

// errNudged ends a watch whose mirror should list again.
var errNudged = errors.New("a reader waits for a revision that the watch doesn't bring")

// follow lists, where asked to, and then watches until that breaks; it never returns nil.
func (m *Mirror) follow(ctx context.Context, relist bool) error {
	if relist {
		kvs, rev, err := m.store.List(ctx, m.root)
		if err != nil {
			return err
		}
		kvs = slices.DeleteFunc(kvs, func(kv state.KV) bool { return !m.keeps(kv.Key) })
		m.publish(&View{revision: rev, sheet: newSheet(kvs)})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return m.store.Watch(ctx, m.root, m.Snapshot().Revision(), func(b state.Batch) bool {
			m.apply(b)
			return true
		})
	})
	group.Go(func() error {
		select {
		case <-m.nudges:
			return errNudged
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return group.Wait()
}

// apply is called by the one watch of the one Run, so nobody else replaces the view meanwhile.
func (m *Mirror) apply(b state.Batch) {
	old := m.Snapshot()
	events := slices.DeleteFunc(slices.Clone(b.Events), func(ev state.Event) bool { return !m.keeps(ev.Key) })
	m.publish(&View{revision: b.Revision, sheet: old.sheet.with(events)})
}

func (m *Mirror) keeps(key string) bool {
	return slices.ContainsFunc(m.prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
}

func (m *Mirror) publish(v *View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = v
	close(m.changed)
	m.changed = make(chan struct{})
}
