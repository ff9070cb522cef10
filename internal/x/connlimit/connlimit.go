// Package connlimit bounds the connections of a listener, so that a flood of them locks nobody out
// who has shown who he is.
//
// A connection is unknown until Known is called for it. Where there are too many unknown ones, the
// oldest of the address that has most of them is closed for a new one: a flood from one place is in
// its own way, and one from many places is outrun by whoever says quickly who he is. Known
// connections are never closed. Where they alone are too many, a new connection is.
package connlimit

import (
	"context"
	"net"
	"slices"
	"sync"
)

// Config bounds connections.
type Config struct {
	Total   int // known and unknown
	Unknown int
}

// Listen returns a listener that keeps to the bounds.
func Listen(l net.Listener, cfg Config) net.Listener {
	return &listener{Listener: l, cfg: cfg, unknown: map[string][]*conn{}}
}

type listener struct {
	net.Listener
	cfg Config

	mu       sync.Mutex
	total    int
	unknowns int
	unknown  map[string][]*conn // by source address, the oldest first
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, of: l, source: sourceOf(inner)}
		victim, ok := l.admit(c)
		if victim != nil {
			_ = victim.Conn.Close() // whoever serves it sees that, and closes it as well
		}
		if ok {
			return c, nil
		}
		_ = inner.Close()
	}
}

func sourceOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return host
}

// admit counts a new connection, and returns the one that has to go for it, if any.
func (l *listener) admit(c *conn) (victim *conn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.cfg.Total || l.unknowns >= l.cfg.Unknown {
		if victim = l.victimLocked(); victim == nil {
			return nil, false
		}
		l.removeLocked(victim)
	}
	l.total++
	l.unknowns++
	l.unknown[c.source] = append(l.unknown[c.source], c)
	return victim, true
}

func (l *listener) victimLocked() *conn {
	var most []*conn
	for _, of := range l.unknown {
		if len(of) > len(most) {
			most = of
		}
	}
	if len(most) == 0 {
		return nil
	}
	return most[0]
}

// removeLocked counts a connection no more; once.
func (l *listener) removeLocked(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	l.total--
	l.forgetLocked(c)
}

// forgetLocked takes a connection out of the unknown ones.
func (l *listener) forgetLocked(c *conn) {
	of := l.unknown[c.source]
	i := slices.Index(of, c)
	if i < 0 {
		return
	}
	l.unknowns--
	if l.unknown[c.source] = slices.Delete(of, i, i+1); len(of) == 1 {
		delete(l.unknown, c.source)
	}
}

// conn is a connection that is counted until it is closed.
type conn struct {
	net.Conn
	of     *listener
	source string
	gone   bool // guarded by the listener's lock
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	c.of.removeLocked(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

type connKey struct{}

// Context is for http.Server.ConnContext: it lets Known find the connection of a request.
func Context(ctx context.Context, c net.Conn) context.Context {
	for {
		switch inner := c.(type) {
		case *conn:
			return context.WithValue(ctx, connKey{}, inner)
		case interface{ NetConn() net.Conn }: // TLS
			c = inner.NetConn()
		default:
			return ctx
		}
	}
}

// Known says that it is known who is at the other end of the connection of a request. ctx is the
// request's.
func Known(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.forgetLocked(c)
}
