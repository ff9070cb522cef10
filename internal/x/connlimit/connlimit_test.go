package connlimit_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/connlimit"
)

// rig is a server that knows who sends X-Me, and clients of several addresses.
type rig struct {
	t    *testing.T
	addr string
}

func newRig(t *testing.T, cfg connlimit.Config) *rig {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Me") != "" {
				connlimit.Known(r.Context())
			}
			_, _ = io.WriteString(w, "hello")
		}))
	s.Listener = connlimit.Listen(s.Listener, cfg)
	s.Config.ConnContext = connlimit.Context
	s.StartTLS() // so that the connection is found behind TLS
	t.Cleanup(s.Close)
	return &rig{t: t, addr: s.Listener.Addr().String()}
}

// client has one connection, from an address of loopback.
func (r *rig) client(from string) *http.Client {
	t := httptest.NewTLSServer(nil).Client().Transport.(*http.Transport).Clone()
	t.TLSClientConfig.InsecureSkipVerify = true
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		return d.DialContext(ctx, network, addr)
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 30 * time.Second}
}

func (r *rig) ask(c *http.Client, me string) error {
	req, err := http.NewRequest(http.MethodGet, "https://"+r.addr, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if me != "" {
		req.Header.Set("X-Me", me)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); err != nil || string(data) != "hello" {
		return errors.Join(err, errors.New(string(data)))
	}
	return nil
}

// hold opens a connection and says nothing.
func (r *rig) hold(from string) net.Conn {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// closed reports whether the server closes a connection within a moment that is long enough.
func closed(c net.Conn, wait time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

// TestAFloodIsInItsOwnWay: whoever has shown who he is stays, another newcomer gets in, and a
// silent one of another address is not the first to go.
func TestAFloodIsInItsOwnWay(t *testing.T) {
	r := newRig(t, connlimit.Config{Total: 100, Unknown: 8})
	operator := r.client("127.0.0.1")
	if err := r.ask(operator, "operator"); err != nil {
		t.Fatal(err)
	}
	quiet := r.hold("127.0.0.2")
	var flood []net.Conn
	for range 40 {
		flood = append(flood, r.hold("127.0.0.3"))
	}
	if !closed(flood[0], 30*time.Second) {
		t.Error("the oldest of the flood is still open")
	}
	if closed(quiet, 50*time.Millisecond) {
		t.Error("the flood took another address's place")
	}
	if err := r.ask(r.client("127.0.0.4"), "worker"); err != nil {
		t.Errorf("a newcomer is locked out: %v", err)
	}
	opened := 0
	operator.Transport.(*http.Transport).DialContext = func(context.Context, string,
		string) (net.Conn, error) {
		opened++
		return nil, errors.New("its connection was closed")
	}
	if err := r.ask(operator, "operator"); err != nil || opened > 0 {
		t.Errorf("the operator lost its connection: %v", err)
	}
}

// TestTotal: known connections are not closed, also where they alone are as many as there may be.
func TestTotal(t *testing.T) {
	r := newRig(t, connlimit.Config{Total: 2, Unknown: 2})
	a, b := r.client("127.0.0.1"), r.client("127.0.0.1")
	for _, c := range []*http.Client{a, b} {
		if err := r.ask(c, "me"); err != nil {
			t.Fatal(err)
		}
	}
	if !closed(r.hold("127.0.0.5"), 30*time.Second) {
		t.Error("a third connection is open")
	}
	a.CloseIdleConnections()
	deadline := time.Now().Add(time.Minute)
	for c := r.client("127.0.0.6"); r.ask(c, "me") != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the place of a closed connection isn't given to another")
		}
	}
	if err := r.ask(b, "me"); err != nil {
		t.Error(err)
	}
}
