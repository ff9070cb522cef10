package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/httpapi"
)

// addTokenBounds adds what each token of a person or program may ask.
func addTokenBounds(flags *pflag.FlagSet, b *httpapi.TokenBounds) {
	flags.Float64Var(&b.Calls, "token-calls", 200,
		"calls a second of each token, but for operators'; 0: no bound")
	flags.IntVar(&b.Open, "token-open", 500,
		"calls of each token at a time, with commands, logs and watches; 0: no bound")
}

// operatorTokensEvery is how often the file with the operator tokens is read again.
const operatorTokensEvery = 2 * time.Second

// followOperatorTokens has the API honour the tokens that the file has at each tick, until ctx
// ends. A file that can't be read, or has none, changes nothing: nobody is locked out by a slip.
func followOperatorTokens(ctx context.Context, file string, a *httpapi.API, log *slog.Logger,
	tick <-chan time.Time) error {
	last, failing := "", ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		now, err := readToken(file)
		if err == nil && now == last {
			failing = ""
			continue
		}
		if err == nil {
			err = a.SetOperatorTokens(now)
		}
		switch {
		case err == nil:
			last, failing = now, ""
			log.InfoContext(ctx, "operator tokens read again", "file", file)
		case err.Error() != failing: // once for each failure
			failing = err.Error()
			log.WarnContext(ctx, "operator tokens not read; the former ones count", "file", file,
				"error", err)
		}
	}
}
