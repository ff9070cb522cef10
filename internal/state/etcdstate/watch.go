package etcdstate

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Watch implements state.Store. Over a lost connection the client resumes by itself; a member that
// has lost its quorum ends the watch, rather than going silent.
func (s *Store) Watch(parent context.Context, prefix string, from int64,
	yield func(state.Batch) bool) error {
	ctx, leave, err := s.enter(parent)
	if err != nil {
		return err
	}
	defer leave()
	changes := s.watcher.Watch(clientv3.WithRequireLeader(ctx), prefix,
		clientv3.WithPrefix(), clientv3.WithRev(from+1), clientv3.WithProgressNotify())
	for resp := range changes {
		if err := resp.Err(); err != nil {
			return s.failed(parent, err, "watch %q from revision %d", prefix, from)
		}
		if len(resp.Events) == 0 {
			continue // only a sign of life
		}
		if !yield(batchOf(resp.Events)) {
			return nil
		}
	}
	if ctx.Err() == nil {
		return errs.New(errs.Unavailable, "watch %q: etcd ended it", prefix)
	}
	return s.failed(parent, ctx.Err(), "watch %q", prefix)
}

// batchOf takes the revision from the events: the response's header may be ahead of them.
func batchOf(events []*clientv3.Event) state.Batch {
	b := state.Batch{Events: make([]state.Event, len(events))}
	for i, ev := range events {
		b.Events[i] = state.Event{KV: fromPB(ev.Kv), Deleted: ev.Type == clientv3.EventTypeDelete}
		b.Revision = max(b.Revision, ev.Kv.ModRevision)
	}
	return b
}
