package guest_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker/guest"
)

// vm is a VM whose control stream ends at a server.
type vm struct{ address string }

func (v vm) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", v.address)
}

// TestAnEventIsBounded: a VM that never ends what it says is listened to no longer, and is heard
// again once it says something else.
func TestAnEventIsBounded(t *testing.T) {
	const most = 64 << 20 // far more than what the client and the connection hold
	var streams, took atomic.Int64
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if streams.Add(1) > 1 {
			_ = json.NewEncoder(w).Encode(guestapi.Health{State: guestapi.StateHealthy})
			return
		}
		_ = json.NewEncoder(w).Encode(guestapi.Health{State: guestapi.StateRunning})
		_, err := w.Write([]byte(`{"error":"`))
		for part := []byte(strings.Repeat("x", 1<<20)); err == nil && took.Load() < most; {
			var n int
			n, err = w.Write(part)
			took.Add(int64(n))
		}
	}))
	defer srv.Close()
	var heard []guestapi.State
	c := guest.New(vm{srv.Listener.Addr().String()}, "token")
	defer c.Close()
	c.Follow(ctx, func(h guestapi.Health) {
		heard = append(heard, h.State)
		if h.State == guestapi.StateHealthy {
			enough()
		}
	})
	if len(heard) != 2 || heard[0] != guestapi.StateRunning {
		t.Errorf("heard %v", heard)
	}
	if n := took.Load(); n >= most {
		t.Errorf("an event of %d bytes was taken", n)
	}
}
