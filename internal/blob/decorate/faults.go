package decorate

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// FaultConfig says how often, from 0 to 1, a request meets each fault. Several may meet one
// request.
type FaultConfig struct {
	Seed    uint64
	Refused float64 // Unavailable, and nothing was done, as by a 503
	Lost    float64 // done, but the answer is Unavailable, as by a cut connection
	// a mutation is sent twice, as by a proxy that retries; the second answer counts
	Repeated float64
	Delayed  float64 // waits for up to Delay before it is done
	Delay    time.Duration
}

// Faulty is a store that fails as real ones do. It is safe for concurrent use.
type Faulty struct {
	store blob.Store

	mu  sync.Mutex
	cfg FaultConfig
	rng *rand.Rand
}

var _ blob.Store = (*Faulty)(nil)

// Faults wraps a store in faults, drawn from cfg.Seed.
func Faults(s blob.Store, cfg FaultConfig) *Faulty {
	return &Faulty{store: s, cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0))}
}

// Set changes the faults of requests to come, also to none. The seed's sequence goes on.
func (f *Faulty) Set(cfg FaultConfig) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg = cfg
}

type draw struct {
	refused, lost, repeated bool
	delay                   time.Duration
}

func (f *Faulty) draw() draw {
	f.mu.Lock()
	defer f.mu.Unlock()
	// All numbers are drawn each time, so that one fault's rate doesn't shift the others' sequence.
	d := draw{
		refused:  f.rng.Float64() < f.cfg.Refused,
		lost:     f.rng.Float64() < f.cfg.Lost,
		repeated: f.rng.Float64() < f.cfg.Repeated,
	}
	delayed, part := f.rng.Float64() < f.cfg.Delayed, f.rng.Float64()
	if delayed {
		d.delay = time.Duration(part * float64(f.cfg.Delay))
	}
	return d
}

func (f *Faulty) do(ctx context.Context, mutation bool, call func() error) error {
	d := f.draw()
	if d.delay > 0 {
		if backoff.Sleep(ctx, d.delay) != nil {
			return errs.Wrap(errs.Unavailable, ctx.Err(), "injected delay")
		}
	}
	if d.refused {
		return errs.New(errs.Unavailable, "injected: slow down")
	}
	if d.repeated && mutation {
		if err := call(); errs.Is(err, errs.Unavailable) {
			return err
		}
	}
	if err := call(); err != nil {
		return err
	}
	if d.lost {
		return errs.New(errs.Unavailable, "injected: lost response")
	}
	return nil
}

// Get implements blob.Store.
func (f *Faulty) Get(ctx context.Context, key string, r blob.Range) (o blob.Object, err error) {
	err = f.do(ctx, false, func() error { o, err = f.store.Get(ctx, key, r); return err })
	if err != nil {
		return blob.Object{}, err
	}
	return o, nil
}

// Put implements blob.Store.
func (f *Faulty) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return f.put(ctx, func() (blob.ETag, error) { return f.store.Put(ctx, key, body) })
}

// PutIfAbsent implements blob.Store.
func (f *Faulty) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return f.put(ctx, func() (blob.ETag, error) { return f.store.PutIfAbsent(ctx, key, body) })
}

// PutIfMatch implements blob.Store.
func (f *Faulty) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	return f.put(ctx, func() (blob.ETag,
		error) {
		return f.store.PutIfMatch(ctx, key, body, match)
	})
}

func (f *Faulty) put(ctx context.Context,
	call func() (blob.ETag, error)) (etag blob.ETag, err error) {
	err = f.do(ctx, true, func() error { etag, err = call(); return err })
	if err != nil {
		return "", err
	}
	return etag, nil
}

// Delete implements blob.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.do(ctx, true, func() error { return f.store.Delete(ctx, key) })
}

// List implements blob.Store. A listing that is lost has yielded everything before.
func (f *Faulty) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	return f.do(ctx, false, func() error { return f.store.List(ctx, prefix, startAfter, yield) })
}

// Close implements blob.Store.
func (f *Faulty) Close() error { return f.store.Close() }
