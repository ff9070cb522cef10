package etcdstate

import (
	"context"
	"io"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// requestTimeout bounds one request, where the caller's context doesn't bound it tighter.
	requestTimeout = 10 * time.Second
	// pageSize is how many keys one request of a List fetches.
	pageSize = 1_000
)

// Store is a state.Store on an etcd client. Make one by Start or Dial. It is safe for concurrent
// use.
type Store struct {
	client  *clientv3.Client
	kv      clientv3.KV
	watcher clientv3.Watcher

	life context.Context // ends at Close, and with it every call
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // added to under mu, while not closed
}

var _ state.Store = (*Store)(nil)

func newStore(client *clientv3.Client, prefix string) *Store {
	s := &Store{client: client, kv: client.KV, watcher: client.Watcher}
	if prefix != "" {
		s.kv = namespace.NewKV(client.KV, prefix)
		s.watcher = namespace.NewWatcher(client.Watcher, prefix)
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// enter begins a call: its context ends with the caller's, or at Close. leave ends the call.
func (s *Store) enter(parent context.Context) (ctx context.Context, leave func(), err error) {
	if err := parent.Err(); err != nil {
		return nil, nil, errs.Wrap(errs.Unavailable, err, "ask the state")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errClosed()
	}
	s.calls.Add(1)
	ctx, cancel := context.WithCancel(parent)
	unhook := context.AfterFunc(s.life, cancel)
	return ctx, func() { unhook(); cancel(); s.calls.Done() }, nil
}

// request is enter with the bound of one request.
func (s *Store) request(parent context.Context) (context.Context, func(), error) {
	ctx, leave, err := s.enter(parent)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	return ctx, func() { cancel(); leave() }, nil
}

// Compact forgets the changes before revision rev. Compacting further back than before does
// nothing.
func (s *Store) Compact(parent context.Context, rev int64) error {
	ctx, leave, err := s.request(parent)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := s.kv.Compact(ctx, rev); err != nil {
		if err := s.failed(parent, err, "compact to revision %d", rev); !errs.Is(err,
			errs.Conflict) {
			return err
		}
	}
	return nil
}

// Snapshot implements state.Store: etcd's own snapshot format, which Restore reads. It holds
// everything in that etcd, also what lies outside of the store's prefix.
func (s *Store) Snapshot(parent context.Context, w io.Writer) error {
	ctx, leave, err := s.enter(parent)
	if err != nil {
		return err
	}
	defer leave()
	r, err := s.client.Snapshot(ctx)
	if err != nil {
		return s.failed(parent, err, "take a snapshot")
	}
	_, err = io.Copy(w, r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return s.failed(parent, err, "copy a snapshot")
	}
	return nil
}

// Close ends every call that runs, with an error of kind Unavailable, and returns when they have
// returned. It must not be called from within a Watch's yield.
func (s *Store) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.calls.Wait()
	if already {
		return nil
	}
	// The client's only complaint is the end of the context that Close itself ends.
	_ = s.client.Close()
	return nil
}
