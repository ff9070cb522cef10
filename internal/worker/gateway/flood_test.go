package gateway_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
)

const (
	hugeBody = 60 << 20
	logKey   = mine + "/log/0000000000000009/000000000000000%d"
	pagesKey = mine + "/map/0000000000000009-0000000%d/pages"
)

// lingers is more than a server waits until it closes a connection that it has cut.
const lingers = time.Second

// put begins a PUT of a huge object on a connection.
func put(c io.Writer, key, token string) error {
	_, err := fmt.Fprintf(c, "PUT /o/%s HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n"+
		"If-None-Match: *\r\nAuthorization: Bearer %s\r\n\r\n", key, hugeBody, token)
	return err
}

// live returns how many bytes of the heap are in use, without garbage.
func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBodiesWithoutATokenTakeNoMemory sends as much of huge bodies as the gateway takes, over a few
// connections and over many.
func TestBodiesWithoutATokenTakeNoMemory(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	address := strings.TrimPrefix(r.url, "http://")
	for _, conns := range []int{12, 200} {
		before := allocated()
		junk := make([]byte, 1<<20)
		var all sync.WaitGroup
		statuses := make([]int, conns)
		for i := range conns {
			all.Go(func() {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if err := put(c, fmt.Sprintf(logKey, 1), "nobody's"); err != nil {
					t.Error(err)
				}
				for range hugeBody / len(junk) {
					if _, err := c.Write(junk); err != nil {
						break // refused: nobody reads on
					}
				}
				statuses[i] = status(c)
			})
		}
		all.Wait()
		if took := allocated() - before; took > 48<<20 {
			t.Errorf("%d connections made the process allocate %d MiB", conns, took>>20)
		}
		for i, s := range statuses {
			if s != http.StatusForbidden && s != 0 { // 0: it was reset before it was read
				t.Errorf("connection %d got status %d", i, s)
			}
		}
	}
	if _, err := r.client(token).Get(t.Context(), mine+"/head", blob.All()); err != nil {
		t.Errorf("the VM's own request afterwards: %v", err)
	}
}

// allocated returns how many bytes were ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// status reads the status of an answer; 0: there is none.
func status(c io.Reader) (code int) {
	line := make([]byte, 12)
	if _, err := io.ReadFull(c, line); err != nil {
		return 0
	}
	_, _ = fmt.Sscanf(string(line), "HTTP/1.1 %d", &code)
	return code
}

// pipes is a listener whose connections are pipes, so that a test's clock is theirs.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.over) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// piped serves a gateway for the disk at mine, for whose one token everything is allowed.
func piped(ctx context.Context, t *testing.T, all *sync.WaitGroup,
	memory *gatewayhttp.Budget) *pipes {
	p := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
	g := gateway.New(gateway.Config{Store: memblob.New(), Memory: memory,
		Logger: slog.New(slog.DiscardHandler),
		Listen: func(context.Context) (net.Listener, error) { return p, nil }})
	g.Grant(gateway.Access{Token: token, DiskPath: mine, Writable: true})
	all.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-g.Ready()
	return p
}

// TestStuckBodiesAreCutAndHarmNobodyElse has a VM begin a hundred huge objects and send no more of
// them. Another VM's gateway has the same budget.
func TestStuckBodiesAreCutAndHarmNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		memory := gatewayhttp.NewBudget(0)
		hostile, other := piped(ctx, t, &all, memory), piped(ctx, t, &all, memory)
		before := live()
		began := time.Now()
		stuck := make([]net.Conn, 100)
		for i := range stuck {
			stuck[i] = hostile.dial()
			if err := put(stuck[i], fmt.Sprintf(logKey, 1), token); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if took := live() - before; took > 128<<20 {
			t.Errorf("%d stuck bodies take %d MiB", len(stuck), took>>20)
		}
		c := other.dial()
		if got := wholePut(t, c, 12<<20); got != http.StatusOK {
			t.Errorf("the other VM's object got status %d", got)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("the other VM waited for %v", waited)
		}
		for i, c := range stuck {
			if got := status(c); got != http.StatusServiceUnavailable {
				t.Errorf("stuck body %d got status %d", i, got)
			}
			_ = c.Close()
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("the stuck bodies were cut after %v", took)
		}
		_ = c.Close()
		cancel()
		all.Wait()
		time.Sleep(lingers)
	})
}

// pages returns an object of so many bytes that has the form of map pages.
func pages(size int) []byte {
	b := make([]byte, size)
	format.PutPagesHeader(b, format.ID{}, 1)
	return b
}

func wholePut(t *testing.T, c net.Conn, size int) int {
	t.Helper()
	if _, err := fmt.Fprintf(c, "PUT /o/"+pagesKey+" HTTP/1.1\r\nHost: gw\r\n"+
		"Content-Length: %d\r\nIf-None-Match: *\r\nAuthorization: Bearer %s\r\n\r\n", 2, size,
		token); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(pages(size)); err != nil {
		t.Fatal(err)
	}
	return status(c)
}

// TestABodyThatIsSlowIsNotCut: each piece comes in time, all of it takes ten times as long.
func TestABodyThatIsSlowIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p := piped(ctx, t, &all, nil)
		c := p.dial()
		if _, err := fmt.Fprintf(c, "PUT /o/"+pagesKey+" HTTP/1.1\r\nHost: gw\r\n"+
			"Content-Length: %d\r\nIf-None-Match: *\r\nAuthorization: Bearer %s\r\n\r\n", 3,
			4<<20, token); err != nil {
			t.Fatal(err)
		}
		for body := pages(4 << 20); len(body) > 0; body = body[128<<10:] {
			time.Sleep(10 * time.Second)
			if _, err := c.Write(body[:128<<10]); err != nil {
				t.Fatalf("cut: %v", err)
			}
		}
		if got := status(c); got != http.StatusOK {
			t.Errorf("status %d", got)
		}
		_ = c.Close()
		cancel()
		all.Wait()
		time.Sleep(lingers)
	})
}

// TestAnAnswerThatNobodyTakesIsCut: else its content would stay in memory for ever.
func TestAnAnswerThatNobodyTakesIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := gatewayhttp.NewBudget(0)
		store := memblob.New()
		if _, err := store.Put(t.Context(), "k", make([]byte, 48<<20)); err != nil {
			t.Fatal(err)
		}
		p := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
		server := &http.Server{Handler: gatewayhttp.New(store, gatewayhttp.AuthorizerFunc(
			func(*http.Request, string, string, int64) error { return nil }),
			gatewayhttp.Config{Share: memory.Share()})}
		var all sync.WaitGroup
		all.Go(func() { _ = server.Serve(p) })
		before := live()
		const conns = 20
		var readers []net.Conn
		for range conns {
			c := p.dial()
			readers = append(readers, c)
			if _, err := io.WriteString(c, "GET /o/k HTTP/1.1\r\nHost: gw\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if took := live() - before; took > 160<<20 {
			t.Errorf("%d answers of 48 MiB that nobody reads take %d MiB", conns, took>>20)
		}
		time.Sleep(5 * time.Minute)
		if took := live() - before; took > 8<<20 {
			t.Errorf("after five minutes they take %d MiB", took>>20)
		}
		for _, c := range readers {
			_ = c.Close()
		}
		_ = server.Close()
		all.Wait()
		time.Sleep(lingers)
	})
}
