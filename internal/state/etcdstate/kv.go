package etcdstate

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// listAttempts bounds how often a List starts over because compaction overtook it.
const listAttempts = 5

// Get implements state.Store, linearizably.
func (s *Store) Get(parent context.Context, key string) (state.KV, error) {
	if key == "" {
		return state.KV{}, errs.New(errs.NotFound, "no key %q in the state", key)
	}
	ctx, leave, err := s.request(parent)
	if err != nil {
		return state.KV{}, err
	}
	defer leave()
	resp, err := s.kv.Get(ctx, key)
	if err != nil {
		return state.KV{}, s.failed(parent, err, "get key %q", key)
	}
	if len(resp.Kvs) == 0 {
		return state.KV{}, errs.New(errs.NotFound, "no key %q in the state", key)
	}
	return fromPB(resp.Kvs[0]), nil
}

// List implements state.Store. It reads page after page at the first page's revision, and starts
// over when that revision is compacted meanwhile.
func (s *Store) List(parent context.Context, prefix string) ([]state.KV, int64, error) {
	for attempt := 1; ; attempt++ {
		kvs, rev, err := s.listOnce(parent, prefix)
		if err == nil {
			return kvs, rev, nil
		}
		if !errs.Is(err, errs.Conflict) {
			return nil, 0, err
		}
		if attempt == listAttempts {
			return nil, 0, errs.Wrap(errs.Unavailable, err,
				"list %q: compaction is faster than the listing", prefix)
		}
	}
}

func (s *Store) listOnce(parent context.Context,
	prefix string) (kvs []state.KV, rev int64, err error) {
	next, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if next == "" {
		next = "\x00"
	}
	for {
		page, err := s.page(parent, next, end, rev)
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			kvs = append(kvs, fromPB(kv))
		}
		if !page.More {
			return kvs, rev, nil
		}
		next = kvs[len(kvs)-1].Key + "\x00"
	}
}

func (s *Store) page(parent context.Context, from, end string,
	rev int64) (*clientv3.GetResponse, error) {
	ctx, leave, err := s.request(parent)
	if err != nil {
		return nil, err
	}
	defer leave()
	resp, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize),
		clientv3.WithRev(rev))
	if err != nil {
		return nil, s.failed(parent, err, "list from key %q", from)
	}
	return resp, nil
}

// Commit implements state.Store.
func (s *Store) Commit(parent context.Context, txn state.Txn) (int64, error) {
	if err := state.Check(txn); err != nil {
		return 0, err
	}
	ctx, leave, err := s.request(parent)
	if err != nil {
		return 0, err
	}
	defer leave()
	conds := make([]clientv3.Cmp, len(txn.If))
	for i, c := range txn.If {
		conds[i] = clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.ModRevision)
	}
	ops := make([]clientv3.Op, len(txn.Then))
	for i, op := range txn.Then {
		if op.Delete {
			ops[i] = clientv3.OpDelete(op.Key)
		} else {
			ops[i] = clientv3.OpPut(op.Key, string(op.Value))
		}
	}
	resp, err := s.kv.Txn(ctx).If(conds...).Then(ops...).Commit()
	if err != nil {
		return 0, s.failed(parent, err, "commit %s", describe(txn))
	}
	if !resp.Succeeded {
		return 0, errs.New(errs.Conflict, "commit %s: the state has changed since it was read",
			describe(txn))
	}
	return resp.Header.Revision, nil
}

// describe names a transaction by a key of it.
func describe(txn state.Txn) string {
	switch {
	case len(txn.Then) > 0:
		return "of key " + txn.Then[0].Key
	case len(txn.If) > 0:
		return "about key " + txn.If[0].Key
	default:
		return "of nothing"
	}
}

// fromPB copies, because the embedded member may hand out its own buffers.
func fromPB(kv *mvccpb.KeyValue) state.KV {
	return state.KV{
		Key: string(kv.Key), Value: append([]byte(nil), kv.Value...),
		CreateRev: kv.CreateRevision, ModRevision: kv.ModRevision,
	}
}
