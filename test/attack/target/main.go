// Command target serves a part of Sluice by itself, so that attempts of test/attack/footholds can
// be made on it: the API on a fleet in memory, an NBD server of an empty disk, or the builder of
// images. It is also built with holes in these parts, which the attempts must find.
//
// It listens where its arguments say, prints a line of JSON once it does, and ends with its input.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "target:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return errors.New("usage: target api|nbd|image NETWORK ADDRESS")
	}
	l, err := net.Listen(os.Args[2], os.Args[3])
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := io.Copy(io.Discard, os.Stdin)
		cancel()
		return err
	})
	serve := map[string]func(context.Context, net.Listener) (any, func() error, error){
		"api": serveAPI, "nbd": serveNBD, "image": serveImages}[os.Args[1]]
	if serve == nil {
		return fmt.Errorf("there is no target %q", os.Args[1])
	}
	about, wait, err := serve(ctx, l)
	if err != nil {
		return err
	}
	group.Go(wait)
	if err := json.NewEncoder(os.Stdout).Encode(about); err != nil {
		return fmt.Errorf("say what is served: %w", err)
	}
	return group.Wait()
}

// served runs an HTTP server until ctx ends.
func served(ctx context.Context, l net.Listener, h http.Handler) error {
	//nolint:gosec // whoever is slow is who tests it
	s := &http.Server{Handler: h}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// code is how an error is called on the wire.
func code(err error) string {
	if err == nil {
		return ""
	}
	return string(errs.KindOf(err))
}
