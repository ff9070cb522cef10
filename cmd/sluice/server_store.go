package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/storekeys"
)

// defaultRoleTerm is the longest session that a role allows where nobody has said more.
const defaultRoleTerm = time.Hour

// addStoreFlags lets the server be told where the store's credentials are, and what workers get.
func addStoreFlags(flags *pflag.FlagSet, cfg *storekeys.Config) {
	flags.StringVar(&cfg.File, "store-credentials-file", "",
		"file with the store's key, profile default as the AWS tools have it; read again when it changes (default: the AWS environment and profile)")
	flags.BoolVar(&cfg.Withhold, "withhold-store-credentials", false,
		"give workers no credentials of the store: each has its own")
	flags.StringVar(&cfg.Role.ARN, "store-role-arn", "",
		"role of which each worker gets sessions of its own, from the store's STS (default: workers get the server's key)")
	flags.StringVar(&cfg.Role.Endpoint, "store-sts-endpoint", "",
		"URL of the STS that gives sessions (default: that of AWS)")
	flags.StringVar(&cfg.Role.Region, "store-sts-region", "",
		"region of the STS (default: that of the store)")
	flags.DurationVar(&cfg.Role.Term, "store-role-term", defaultRoleTerm,
		"how long a session can be used, 15m to 12h; renewed after two thirds of it")
}

// openStore returns the store of the pool, which has to answer, and its credentials.
func (f *serverFlags) openStore(ctx context.Context, log *slog.Logger) (blob.Store,
	*storekeys.Source, error) {
	cfg := f.storeKeys
	cfg.Store, cfg.Log = f.store, log.With("component", "store")
	keys, err := storekeys.New(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	store, err := blobs.OpenWith(ctx, f.store, keys)
	if err != nil {
		return nil, nil, err
	}
	if err := blobs.Probe(ctx, store, withoutQuery(f.store)); err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, keys, nil
}
