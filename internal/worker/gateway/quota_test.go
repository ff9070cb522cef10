package gateway_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayblob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// limited serves a gateway over pipes, for a disk of a size, by the clock of the bubble.
type limited struct {
	*gateway.Gateway
	client *gatewayblob.Store
	store  *memblob.Store
	end    func()
}

func serveLimited(t *testing.T, store *memblob.Store, limits gateway.Limits,
	size int64) *limited {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
	g := gateway.New(gateway.Config{Store: store, Limits: limits,
		Logger: slog.New(slog.DiscardHandler),
		Listen: func(context.Context) (net.Listener, error) { return p, nil }})
	var all sync.WaitGroup
	all.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-g.Ready()
	g.Grant(gateway.Access{Token: token, DiskPath: mine, Writable: true,
		Disk: gateway.Identity{Size: size}})
	c, err := gatewayblob.New(gatewayblob.Config{BaseURL: "http://gw", Token: token,
		Dial: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	return &limited{Gateway: g, client: c, store: store, end: func() {
		c.Close()
		cancel()
		all.Wait()
		time.Sleep(lingers)
	}}
}

func (l *limited) put(t *testing.T, n, size int) error {
	t.Helper()
	_, err := l.client.PutIfAbsent(t.Context(),
		fmt.Sprintf("%s/map/0000000000000001-%08x/pages", mine, n), pages(size))
	return err
}

// TestADiskAtItsQuotaStoresNoMore: what there was before it was attached counts, reads go on, and
// what was freed by a collection is its to use again, without anybody telling the gateway.
func TestADiskAtItsQuotaStoresNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx := memblob.New(), t.Context()
		const mib = 1 << 20
		old := mine + "/seg/0000000000000001-00000001"
		if _, err := store.Put(ctx, old, make([]byte, 6*mib)); err != nil {
			t.Fatal(err)
		}
		// 2 × 3 MiB + 4 MiB
		l := serveLimited(t, store, gateway.Limits{QuotaFactor: 2, QuotaExtra: 4 * mib}, 3*mib)
		defer l.end()
		if err := l.put(t, 1, mib); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // it is measured
		if c := l.Counts(); c.StoredBytes != 7*mib || c.QuotaBytes != 10*mib || c.OverQuota {
			t.Errorf("%+v", c)
		}
		if err := l.put(t, 2, 2*mib); err != nil {
			t.Fatal(err)
		}
		err := l.put(t, 3, 2*mib)
		if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "quota") ||
			!strings.Contains(errs.RemedyOf(err), "sluice disk collect") {
			t.Errorf("beyond the quota: %v, remedy %q", err, errs.RemedyOf(err))
		}
		if c := l.Counts(); !c.OverQuota || c.Refused == 0 {
			t.Errorf("%+v", c)
		}
		if _, err := l.client.Get(ctx, old, blob.All()); err != nil {
			t.Errorf("a read at the quota: %v", err)
		}
		if err := store.Delete(ctx, old); err != nil { // as a collector does
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if err := l.put(t, 3, 2*mib); err != nil {
			t.Errorf("after a collection: %v", err)
		}
		if c := l.Counts(); c.StoredBytes != 5*mib || c.OverQuota {
			t.Errorf("%+v", c)
		}
	})
}

// TestADiskAtItsQuotaCanBeClosed: else its machine could be neither stopped nor moved.
func TestADiskAtItsQuotaCanBeClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serveLimited(t, memblob.New(), gateway.Limits{QuotaFactor: 1, QuotaExtra: 1}, 4096)
		defer l.end()
		if err := l.put(t, 1, 8192); !errs.Is(err, errs.Exhausted) {
			t.Errorf("beyond the quota: %v", err)
		}
		l.Closing()
		if err := l.put(t, 1, 8192); err != nil {
			t.Errorf("while it is closed: %v", err)
		}
	})
}

// TestRatesAreHeld: who asks for too much waits for its turn, and nobody else does.
func TestRatesAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx := memblob.New(), t.Context()
		key := mine + "/seg/0000000000000001-00000001"
		if _, err := store.Put(ctx, key, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		busy := serveLimited(t, store, gateway.Limits{Requests: 10, Bytes: -1}, 4096)
		defer busy.end()
		heavy := serveLimited(t, store, gateway.Limits{Requests: -1, Bytes: 1 << 20}, 4096)
		defer heavy.end()
		free := serveLimited(t, store, gateway.Limits{}, 4096)
		defer free.end()
		took := func(l *limited, n int, r blob.Range) time.Duration {
			began := time.Now()
			for range n {
				if _, err := l.client.Get(ctx, key, r); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began)
		}
		one := blob.Range{Offset: 0, Length: 1}
		if d := took(busy, 140, one); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("140 requests at 10 a second, of which 40 at once, took %v", d)
		}
		if d := took(heavy, 14, blob.All()); d < 8*time.Second || d > 11*time.Second {
			t.Errorf("14 MiB at 1 MiB a second, of which 4 at once, took %v", d)
		}
		if d := took(free, 140, blob.All()); d > time.Second {
			t.Errorf("a VM within its bounds took %v", d)
		}
		if c := busy.Counts(); c.Throttled != 0 {
			t.Errorf("it was told to come back: %+v", c)
		}
		// Four hundred at once: those whose turn is too far off are told so.
		var all sync.WaitGroup
		var mu sync.Mutex
		kinds := map[errs.Kind]int{}
		for range 400 {
			all.Go(func() {
				_, err := busy.client.Get(ctx, key, one)
				if _, throttled := blob.ThrottledFor(err); err != nil && !throttled {
					t.Errorf("%v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				kinds[errs.KindOf(err)]++
			})
		}
		all.Wait()
		if kinds[""] < 150 || kinds[errs.Unavailable] < 150 {
			t.Errorf("answers by kind: %v", kinds)
		}
		if c := busy.Counts(); c.Throttled != int64(kinds[errs.Unavailable]) {
			t.Errorf("%+v, %v", c, kinds)
		}
	})
}
