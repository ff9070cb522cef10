package worker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// conditions are the worker's current conditions: what is wrong with it. Safe for concurrent use.
type conditions struct {
	now     func() time.Time
	changed func()

	mu  sync.Mutex
	all map[fleet.ConditionName]fleet.Condition
}

func newConditions(now func() time.Time, changed func()) *conditions {
	return &conditions{now: now, changed: changed, all: map[fleet.ConditionName]fleet.Condition{}}
}

// set raises a condition with err as its message, or clears it if err is nil.
func (c *conditions) set(name fleet.ConditionName, err error) {
	c.mu.Lock()
	old, was := c.all[name]
	switch {
	case err == nil && was:
		delete(c.all, name)
	case err != nil && !was:
		c.all[name] = fleet.NewCondition(name, c.now(), err.Error())
	case err != nil:
		old.Message = err.Error()
		c.all[name] = old
	}
	c.mu.Unlock()
	if was != (err != nil) {
		c.changed()
	}
}

func (c *conditions) has(name fleet.ConditionName) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.all[name]
	return ok
}

func (c *conditions) list() []fleet.Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.all),
		func(a, b fleet.Condition) int { return cmp.Compare(a.Name, b.Name) })
}

func (w *Worker) conditionsNow() []fleet.Condition {
	all := w.conditions.list()
	if t := w.pool.Trouble(); t != nil {
		all = append(all, fleet.NewCondition(fleet.ConditionPoolFailing, t.Since, t.Message))
	}
	if since, err := w.keyless(); err != nil {
		all = append(all, fleet.NewCondition(fleet.ConditionKeysMissing, since, err.Error()))
	}
	if since, err := w.deps.StoreKeys.Trouble(); err != nil {
		all = append(all, fleet.NewCondition(fleet.ConditionStoreCredentialsOld, since,
			err.Error()))
	}
	return all
}

const (
	storeStrikes    = 3 // failures in a row that make a condition
	storeProbeEvery = time.Second
	storeProbeKey   = "disks/.reachable" // never written
)

// watchedStore raises and clears the condition store-unreachable, by the results of all requests
// that pass through it.
type watchedStore struct {
	blob.Store
	conditions *conditions

	mu      sync.Mutex
	strikes int
}

func (s *watchedStore) saw(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // the caller gave up: no evidence about the store
	}
	s.mu.Lock()
	before := s.strikes
	if errs.Is(err, errs.Unavailable) {
		s.strikes++
	} else {
		s.strikes = 0
	}
	after := s.strikes
	s.mu.Unlock()
	switch {
	case after >= storeStrikes:
		s.conditions.set(fleet.ConditionStoreUnreachable, err)
	case before >= storeStrikes:
		s.conditions.set(fleet.ConditionStoreUnreachable, nil)
	}
}

func (s *watchedStore) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	o, err := s.Store.Get(ctx, key, r)
	s.saw(ctx, err)
	return o, err
}

func (s *watchedStore) PutIfAbsent(ctx context.Context, key string,
	body []byte) (blob.ETag, error) {
	e, err := s.Store.PutIfAbsent(ctx, key, body)
	s.saw(ctx, err)
	return e, err
}

func (s *watchedStore) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	e, err := s.Store.PutIfMatch(ctx, key, body, match)
	s.saw(ctx, err)
	return e, err
}

// probeLoop sends requests to an unreachable store, so that the condition clears without other
// traffic.
func (w *Worker) probeLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		sleep(ctx, storeProbeEvery)
		if w.conditions.has(fleet.ConditionStoreUnreachable) {
			pctx, cancel := context.WithTimeout(ctx, 5*storeProbeEvery)
			_, err := w.store.Get(pctx, storeProbeKey, blob.All())
			cancel()
			if err != nil && !errs.Is(err, errs.NotFound) {
				w.log.DebugContext(ctx, "store is still unreachable", "error", err)
			}
		}
	}
	return nil
}

// countDisk merges three counts of one run's disk: the remembered ones, the platform's, and the
// gateway's since this worker process opened it. Counts only grow, and each may have begun later
// than another, so the greatest is right.
func countDisk(kept, said fleet.DiskReport, gate *gateway.Gateway) fleet.DiskReport {
	var c gateway.Counts
	if gate != nil {
		c = gate.Counts()
	}
	return fleet.DiskReport{
		Epoch:        max(kept.Epoch, said.Epoch),
		Replayed:     max(kept.Replayed, said.Replayed),
		FrontEnd:     cmp.Or(said.FrontEnd, kept.FrontEnd),
		Ungrown:      cmp.Or(said.Ungrown, kept.Ungrown),
		Requests:     max(kept.Requests, said.Requests, c.Reads+c.Writes),
		BytesRead:    max(kept.BytesRead, said.BytesRead, c.BytesRead),
		BytesWritten: max(kept.BytesWritten, said.BytesWritten, c.BytesWritten),
		StoredBytes:  cmp.Or(c.StoredBytes, kept.StoredBytes),
		QuotaBytes:   cmp.Or(c.QuotaBytes, kept.QuotaBytes),
	}
}
