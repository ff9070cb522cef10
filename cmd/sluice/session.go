package main

import (
	"cmp"
	"context"
	"path/filepath"
	"strings"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/signin/login"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sessions are the sign-ins of whoever runs this.
func (d *deps) sessions() *login.Store {
	base := d.env("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) { // as the convention has it
		base = filepath.Join(d.env("HOME"), ".config")
	}
	if !filepath.IsAbs(base) {
		return login.NewStore("")
	}
	return login.NewStore(filepath.Join(base, "sluice", "sessions"))
}

// serverURL is a server's URL as sessions name it.
func serverURL(url string) string { return strings.TrimRight(url, "/") }

// hasSession reports whether somebody has signed in to a server; also if that can't be read, which
// whoever uses it is told.
func (d *deps) hasSession(url string) bool {
	_, err := d.sessions().Load(serverURL(url))
	return !errs.Is(err, errs.NotFound)
}

// sessionClient returns a client that calls as whoever has signed in to a server.
func (d *deps) sessionClient(url string) (*client.Client, error) {
	store, url := d.sessions(), serverURL(url)
	s, err := store.Load(url)
	if err != nil {
		return nil, err
	}
	ca, err := d.authority()
	if err != nil {
		return nil, err
	}
	if ca == nil {
		ca = s.ServerCA
	}
	return client.New(url, "", client.WithCA(ca),
		client.WithTokens(func(ctx context.Context) (string, error) {
			return store.Token(ctx, url)
		}))
}

// signInServer returns the server that --server names, or that commands would call, with the
// authority by which it is known.
func (d *deps) signInServer(flag string) (url string, ca []byte, err error) {
	if ca, err = d.authority(); err != nil {
		return "", nil, err
	}
	if d.dir != "" || flag == "" && d.env("SLUICE_URL") == "" && d.env("SLUICE_DIR") != "" {
		f, err := client.ReadFleetFile(cmp.Or(d.dir, d.env("SLUICE_DIR")))
		if err != nil {
			return "", nil, err
		}
		if ca == nil {
			ca = f.CA
		}
		return serverURL(cmp.Or(flag, f.URL)), ca, nil
	}
	store := d.sessions()
	if url = serverURL(cmp.Or(flag, d.env("SLUICE_URL"))); url == "" {
		if url, err = store.Last(); err != nil {
			return "", nil, err
		}
	}
	if url == "" {
		return "", nil, usageError("no server is named: give --server or SLUICE_URL")
	}
	if ca != nil {
		return url, ca, nil
	}
	before, err := store.Load(url) // it was named its authority at the last sign-in
	if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Invalid) {
		return "", nil, err
	}
	return url, before.ServerCA, nil
}
