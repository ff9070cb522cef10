package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Export is one device under a name.
type Export struct {
	Name        string // what clients ask for; the first export also answers to ""
	Description string // shown in listings
	Device      disk.Device
	ReadOnly    bool // writes are refused, whatever the device would say
}

// Config says what is served and within which bounds. Zero values are good defaults.
type Config struct {
	Exports  []Export
	TLS      *tls.Config // if set, nothing is served without it
	MaxConns int         // connections at a time; 16
	// bytes of requests under way on one connection; 64 MiB, at least 33 MiB
	ConnMemory int64
	Handshake  time.Duration // how long a negotiation may take; 10 s
	// how long, at the end, requests are still answered, with ESHUTDOWN; 100 ms
	Grace  time.Duration
	Logger *slog.Logger // default: discards
}

// maxParallel is how many requests of one connection run at a time.
const maxParallel = 64

// Server serves exports on listeners. Make it with New, and Run it once.
type Server struct {
	cfg       Config
	log       *slog.Logger
	listeners []net.Listener
	slots     chan struct{}
	buffers   bufferPool
}

// New returns a server for the listeners, which it closes when Run ends.
func New(cfg Config, listeners ...net.Listener) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if len(listeners) == 0 {
		return nil, errs.New(errs.Invalid, "an NBD server without a listener")
	}
	return &Server{cfg: cfg, log: cfg.Logger, listeners: listeners,
		slots: make(chan struct{}, cfg.MaxConns)}, nil
}

// complete checks the exports and fills in what is not set.
func (cfg *Config) complete() error {
	if len(cfg.Exports) == 0 {
		return errs.New(errs.Invalid, "an NBD server without an export")
	}
	names := map[string]bool{}
	for _, e := range cfg.Exports {
		if e.Device == nil || len(e.Name) > maxName || names[e.Name] {
			return errs.New(errs.Invalid, "bad or repeated NBD export %q", e.Name)
		}
		names[e.Name] = true
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 16
	}
	if cfg.ConnMemory == 0 {
		cfg.ConnMemory = 64 << 20
	}
	cfg.ConnMemory = max(cfg.ConnMemory, maxRequest+1<<20)
	if cfg.Handshake == 0 {
		cfg.Handshake = 10 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = 100 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Run serves until ctx ends, which is no error, or a listener fails. When it returns, every request
// that was begun has ended and no connection is left. It flushes nothing by itself.
func (s *Server) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		g.Go(func() error { return s.accept(gctx, l, g) })
		g.Go(func() error {
			<-gctx.Done()
			return closeQuietly(l)
		})
	}
	return g.Wait()
}

func (s *Server) accept(ctx context.Context, l net.Listener, g *errgroup.Group) error {
	for {
		select {
		// the next client waits in the listener's queue until one has gone
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept()
		if err != nil {
			<-s.slots
			if ctx.Err() != nil {
				return nil
			}
			if pause(ctx, err) {
				continue
			}
			return errs.Wrap(errs.Unavailable, err, "accept NBD clients on %s", l.Addr())
		}
		g.Go(func() error {
			defer func() { <-s.slots }()
			s.serve(ctx, c)
			return nil
		})
	}
}

// pause waits a little after an error that passes by itself, such as a lack of descriptors.
func pause(ctx context.Context, err error) bool {
	var timeout interface{ Temporary() bool }
	if !errors.As(err, &timeout) || !timeout.Temporary() {
		return false
	}
	_ = backoff.Sleep(ctx, 50*time.Millisecond) // the accept sees when ctx has ended
	return true
}

func closeQuietly(c io.Closer) error {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// serve has one client, from its first byte to its last.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	log := s.log.With("client", c.RemoteAddr().String())
	defer c.Close()
	// A negotiation is simply cut when the server ends; a session first answers what is under way.
	unhook := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	_ = c.SetDeadline(time.Now().Add(s.cfg.Handshake)) // the pipe's error shows at the first read
	h := &handshake{server: s, conn: c, log: log}
	session, err := h.run(ctx)
	if unhooked := unhook(); err != nil || session == nil || !unhooked {
		if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
			log.Info("nbd negotiation ended", "err", err.Error())
		}
		return
	}
	defer session.conn.Close()
	_ = session.conn.SetDeadline(time.Time{})
	log.Debug("nbd client attached", "export", session.export.Name)
	if err := session.run(ctx); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		log.Info("nbd connection ended", "export", session.export.Name, "err", err.Error())
	}
}

// find returns the export of a name; "" is the first.
func (s *Server) find(name string) *Export {
	for i := range s.cfg.Exports {
		if s.cfg.Exports[i].Name == name {
			return &s.cfg.Exports[i]
		}
	}
	if name == "" {
		return &s.cfg.Exports[0]
	}
	return nil
}

// flags returns what an export can do.
func (e *Export) flags() uint16 {
	f := uint16(exportHasFlags | exportFlush | exportFUA | exportDF | exportMultiConn)
	if e.ReadOnly {
		return f | exportReadOnly
	}
	return f | exportTrim | exportWriteZeroes | exportFastZero
}
