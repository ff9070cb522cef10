package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/nbd"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const nbdPort = "10809"

// NBD says where a disk is served over NBD, and to whom.
type NBD struct {
	Listeners []net.Listener
	URIs      []string    // of the listeners, as clients write them
	TLS       *tls.Config // of TCP; nil: none
}

func (n *NBD) close() error { return closeAll(n.Listeners) }

// ListenNBD opens what is to be served on: a unix socket, an address, or both. secure is not nil if
// TCP is to be TLS.
func ListenNBD(ctx context.Context, socket, listen string, secure *tls.Config) (NBD, error) {
	n := NBD{TLS: secure}
	var lc net.ListenConfig
	if socket != "" {
		path, err := filepath.Abs(socket)
		if err != nil {
			return n, errs.Wrap(errs.Invalid, err, "socket %s", socket)
		}
		if err := clearSocket(ctx, path); err != nil {
			return n, err
		}
		l, err := lc.Listen(ctx, "unix", path)
		if err != nil {
			return n, errs.Wrap(errs.Unavailable, err, "listen on %s", path)
		}
		n.Listeners, n.URIs = append(n.Listeners, l),
			append(n.URIs, "nbd+unix:///?socket="+url.QueryEscape(path))
		if err := os.Chmod(path, 0o600); err != nil {
			return n, errors.Join(errs.Wrap(errs.Denied, err, "protect %s", path), l.Close())
		}
	}
	if listen == "" {
		return n, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		host, port = listen, nbdPort
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return n, errors.Join(errs.Wrap(errs.Unavailable, err, "listen on %s", listen), n.close())
	}
	scheme := "nbd://"
	if secure != nil {
		scheme = "nbds://"
	}
	n.Listeners, n.URIs = append(n.Listeners, l), append(n.URIs, scheme+l.Addr().String())
	return n, nil
}

// serve serves the disk until ctx ends, or the disk has stopped, which is an error.
func (s *Session) serve(ctx context.Context) error {
	n := &s.cfg.NBD
	s.record.NBD = n.URIs
	for _, l := range n.Listeners {
		a, ok := l.Addr().(*net.TCPAddr)
		if ok && !a.IP.IsLoopback() && (n.TLS == nil || n.TLS.ClientCAs == nil) {
			fmt.Fprintf(s.deps.Stderr, "warning: whoever reaches %s can use the disk; "+
				"--tls-client-ca asks for certificates\n", a)
		}
	}
	var servers []*nbd.Server
	for _, l := range n.Listeners { // one each: TLS is for TCP
		cfg := nbd.Config{Logger: s.cfg.Logger, TLS: n.TLS,
			Exports: []nbd.Export{{Name: s.name, Description: s.ref.URL, Device: s.dev,
				ReadOnly: s.cfg.ReadOnly}}}
		if l.Addr().Network() == "unix" {
			cfg.TLS = nil
		}
		server, err := nbd.New(cfg, l)
		if err != nil {
			return errors.Join(err, n.close())
		}
		servers = append(servers, server)
	}
	begun := false // from then on the servers close what they listen on
	err := s.announce(ctx, fmt.Sprintf("%s is served at %s", s.ref.URL,
		strings.Join(s.record.NBD, " and ")), func(ctx context.Context) error {
		begun = true
		return s.run(ctx, servers)
	})
	if !begun {
		err = errors.Join(err, n.close())
	}
	return err
}

// run runs NBD servers until ctx ends or the disk has stopped, which is an error.
func (s *Session) run(ctx context.Context, servers []*nbd.Server) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		g.Go(func() error { return server.Run(gctx) })
	}
	g.Go(func() error {
		select {
		case <-gctx.Done():
			return nil
		case <-s.fenced():
			return s.writer.Err()
		}
	})
	return g.Wait()
}

// clearSocket removes a socket that nobody listens on, as one that was killed leaves behind.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return errs.New(errs.Exists, "%s is there, and is no socket", path).
			WithRemedy("choose another path")
	}
	if c, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		return errors.Join(errs.New(errs.Exists, "somebody serves on %s already", path).
			WithRemedy("choose another path"), c.Close())
	}
	if err := os.Remove(path); err != nil {
		return errs.Wrap(errs.Denied, err, "remove the old socket %s", path)
	}
	return nil
}

func closeAll(listeners []net.Listener) error {
	var err error
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}
