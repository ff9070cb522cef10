package worker_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// cutStore can be cut off.
type cutStore struct {
	blob.Store
	cut atomic.Bool
}

func (s *cutStore) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if s.cut.Load() {
		return blob.Object{}, errs.New(errs.Unavailable, "cut off")
	}
	return s.Store.Get(ctx, key, r)
}

func (s *cutStore) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if s.cut.Load() {
		return "", errs.New(errs.Unavailable, "cut off")
	}
	return s.Store.PutIfAbsent(ctx, key, body)
}

func (r *rig) hasCondition(name fleet.ConditionName) bool {
	return slices.ContainsFunc(r.feed.last().Conditions, func(c fleet.Condition) bool {
		return c.Name == name && c.Message != "" && !c.Since.IsZero()
	})
}

func TestUnreachableStoreIsACondition(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	store := &cutStore{Store: r.store}
	r.store = store
	r.start()
	store.cut.Store(true)
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.eventually("condition", func() bool {
		return r.hasCondition(fleet.ConditionStoreUnreachable)
	})
	if v := r.feed.vm(m1); v.Phase != fleet.PhasePreparing {
		t.Fatalf("reported %+v", v)
	}
	store.cut.Store(false)
	r.awaitPhase(m1, 1, fleet.PhaseHealthy) // tried again in time
	r.eventually("no condition", func() bool {
		return !r.hasCondition(fleet.ConditionStoreUnreachable)
	})
}

func TestStoreThatStaysUnreachableFailsTheStart(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	store := &cutStore{Store: r.store}
	r.store = store
	store.cut.Store(true)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	if v := r.awaitPhase(m1, 1, fleet.PhaseFailed); v.ErrorKind != string(errs.Unavailable) {
		t.Fatalf("reported %+v", v)
	}
	store.cut.Store(false)
	r.eventually("the condition goes away by itself",
		func() bool { return !r.hasCondition(fleet.ConditionStoreUnreachable) })
}

func TestBootsThatFailAreAConditionAndFailTheStart(t *testing.T) {
	r := newRig(t, 1)
	r.newDisk(m1)
	r.host.mu.Lock()
	r.host.failBoot = errs.New(errs.Exhausted, "no more processes")
	r.host.mu.Unlock()
	r.start()
	r.eventually("condition", func() bool { return r.hasCondition(fleet.ConditionPoolFailing) })
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	v := r.awaitPhase(m1, 1, fleet.PhaseFailed)
	if v.ErrorKind != string(errs.Exhausted) || v.HasVM {
		t.Fatalf("reported %+v", v)
	}
	r.host.mu.Lock()
	r.host.failBoot = nil
	r.host.mu.Unlock()
	r.feed.assign(assignment(m1, 2, fleet.WantRunning))
	r.awaitPhase(m1, 2, fleet.PhaseHealthy)
	r.eventually("no condition", func() bool { return !r.hasCondition(fleet.ConditionPoolFailing) })
}
