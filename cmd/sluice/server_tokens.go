package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/sluice-platform/sluice/internal/httpapi"
)

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
