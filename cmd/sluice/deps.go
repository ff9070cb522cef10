package main

import (
	"cmp"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

// deps is what commands use of the world, and the flags that all of them share.
type deps struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string

	args []string // of the command line
	dir  string   // --dir
	json bool     // --json

	caFile string // --ca-file

	key     keyFlags     // of disk commands
	journal journalFlags // of disk commands that attach
}

// fleetAddress says where the fleet is, from --dir, SLUICE_URL, SLUICE_DIR, or where somebody
// signed in last, in that order. A server without a token is one to which somebody has signed in.
func (d *deps) fleetAddress() (client.FleetFile, error) {
	dir := d.dir
	url, token := d.env("SLUICE_URL"), d.env("SLUICE_TOKEN")
	if dir == "" && url == "" {
		dir = d.env("SLUICE_DIR")
	}
	if dir != "" {
		return client.ReadFleetFile(dir)
	}
	if url == "" {
		last, err := d.sessions().Last()
		if err != nil || last != "" {
			return client.FleetFile{URL: last}, err
		}
	}
	switch {
	case url == "":
		return client.FleetFile{}, &api.Error{Code: "invalid", Message: "no fleet is named",
			Remedy: "give --dir or SLUICE_DIR (a directory made by: sluice dev up), or SLUICE_URL and SLUICE_TOKEN, or: sluice login --server URL"}
	case token == "" && !d.hasSession(url):
		return client.FleetFile{}, &api.Error{Code: "invalid",
			Message: "SLUICE_URL is set, but SLUICE_TOKEN is not, and you are not signed in there",
			Remedy:  "set SLUICE_TOKEN to a token of that fleet, or: sluice login"}
	}
	return client.FleetFile{URL: url, Token: token}, nil
}

// authority returns the authority that --ca-file or SLUICE_CA_FILE names; nil for none.
func (d *deps) authority() ([]byte, error) {
	file := cmp.Or(d.caFile, d.env("SLUICE_CA_FILE"))
	if file == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(file)
	if err != nil {
		return nil, &api.Error{Code: "invalid", Message: "the fleet's authority can't be read",
			Cause: err.Error(), Err: err,
			Remedy: "give --ca-file or SLUICE_CA_FILE a copy of identity/ca.pem in the server's --data directory"}
	}
	return ca, nil
}

// client returns a client of the fleet.
func (d *deps) client() (*client.Client, error) {
	f, err := d.fleetAddress()
	if err != nil {
		return nil, err
	}
	if f.Token == "" {
		return d.sessionClient(f.URL)
	}
	ca, err := d.authority()
	if err != nil {
		return nil, err
	}
	if ca == nil {
		ca = f.CA
	}
	return client.New(f.URL, f.Token, client.WithCA(ca))
}

// logger is for daemons: JSON lines on stderr.
func (d *deps) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(d.stderr, &slog.HandlerOptions{Level: level}))
}

// terminal returns the file of a stream that is a terminal, or nil.
func terminal(stream any) *os.File {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// noticeable is from when on a command shows that it is at work.
const noticeable = time.Second
