package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/signin"
)

// addTokenBounds adds what each token of a person or program may ask.
func addTokenBounds(flags *pflag.FlagSet, b *httpapi.TokenBounds) {
	flags.Float64Var(&b.Calls, "token-calls", 200,
		"calls a second of each token, but for operators'; 0: no bound")
	flags.IntVar(&b.Open, "token-open", 500,
		"calls of each token at a time, with commands, logs and watches; 0: no bound")
}

// filesEvery is how often files that may change are read again.
const filesEvery = 2 * time.Second

// followed is a file whose text counts for as long as the server runs, as it is now.
type followed struct {
	what string // is in it, for the log
	file string
	set  func(text string) error
}

// operatorTokens is the file with the tokens of operators.
func operatorTokens(file string, a *httpapi.API) followed {
	return followed{what: "operator tokens", file: file, set: a.SetOperatorTokens}
}

// roles is the file with what groups and people may do.
func roles(file string, p *signin.People) followed {
	return followed{what: "roles", file: file, set: p.SetRoles}
}

// follow hands on the text that the file has at each tick, until ctx ends. A file that can't be
// read, or has nothing that can be used, changes nothing: nobody is locked out by a slip.
func (f followed) follow(ctx context.Context, log *slog.Logger, tick <-chan time.Time) error {
	last, failing := "", ""
	log = log.With("holds", f.what, "file", f.file)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		data, err := os.ReadFile(f.file)
		now := string(data)
		if err == nil && now == last {
			failing = ""
			continue
		}
		if err == nil {
			err = f.set(now)
		}
		switch {
		case err == nil:
			last, failing = now, ""
			log.InfoContext(ctx, "file read again")
		case err.Error() != failing: // once for each failure
			failing = err.Error()
			log.WarnContext(ctx, "file not used; what it had before counts", "error", err)
		}
	}
}

// every follows a file until ctx ends.
func (f followed) every(ctx context.Context, log *slog.Logger, d time.Duration) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	return f.follow(ctx, log, tick.C)
}
