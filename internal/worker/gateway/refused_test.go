package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayblob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestRefusalsAreLoggedOnceWithACount: a VM whose token is dead asks hundreds of times.
func TestRefusalsAreLoggedOnceWithACount(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer // read once the gateway has ended
	var told atomic.Int64
	gw := gateway.New(gateway.Config{Store: memblob.New(), Refused: func() { told.Add(1) },
		Logger: slog.New(slog.NewTextHandler(&out, nil)),
		Listen: func(context.Context) (net.Listener, error) { return l, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- gw.Run(ctx) }()
	c, err := gatewayblob.New(gatewayblob.Config{BaseURL: "http://" + l.Addr().String(),
		Token: "dead", Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const asked = 50
	for range asked {
		if _, err := c.Get(t.Context(), mine+"/head", blob.All()); !errs.Is(err, errs.Denied) {
			t.Errorf("a dead token gets %v", err)
		}
	}
	if n := gw.Counts().Refused; n < asked || told.Load() != n {
		t.Errorf("%d refusals counted, %d told", n, told.Load())
	}
	cancel()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	said := out.String()
	if n := strings.Count(said, "without a good token"); n != 2 ||
		!strings.Contains(said, "repeated=49") {
		t.Errorf("%d lines:\n%s", n, said)
	}
}

// TestARefusedListingHasAStatus: a meter or a firewall in between would take 200 for a success.
func TestARefusedListingHasAStatus(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	for prefix, want := range map[string]int{
		"disks/": http.StatusForbidden, other + "/": http.StatusForbidden,
		mine + "/log/": http.StatusOK, mine + "/seg/": http.StatusOK,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			r.url+"/list?prefix="+url.QueryEscape(prefix), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("list %q: status %d, want %d", prefix, resp.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
