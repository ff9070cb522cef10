package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/serverlink"
	"github.com/sluice-platform/sluice/internal/worker/storekey"
	"github.com/sluice-platform/sluice/internal/x/keyring"
)

// Where a worker's credentials of the store come from.
const (
	storeKeysAuto   = "auto"
	storeKeysOwn    = "own"
	storeKeysServer = "server"
)

func addStoreKeySource(f *pflag.FlagSet, from *string) {
	f.StringVar(from, "store-credentials", storeKeysAuto,
		"whose credentials of the store are used: own (this host's, as the AWS tools find them), server (those that the server gives), or auto (own if the environment names some, else the server's)")
}

// namesStoreKeys are the variables by which somebody has given this process credentials of its own.
var namesStoreKeys = []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE",
	"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_CONTAINER_CREDENTIALS_FULL_URI"}

// checkStoreKeySource refuses what is none.
func checkStoreKeySource(from string) error {
	switch from {
	case storeKeysAuto, storeKeysOwn, storeKeysServer:
		return nil
	}
	return usageError("--store-credentials %q: use auto, own or server", from)
}

// usesOwnStoreKeys reports whether the worker uses credentials of this host, whatever the server
// has.
func (cfg *workerConfig) usesOwnStoreKeys() bool {
	return cfg.storeFrom == storeKeysOwn || cfg.storeFrom == storeKeysAuto &&
		slices.ContainsFunc(namesStoreKeys, func(name string) bool { return os.Getenv(name) != "" })
}

// storeKeys returns what holds the worker's credentials of the store.
func (cfg *workerConfig) storeKeys(link *serverlink.Link, log *slog.Logger) *storekey.Holder {
	data, err := filepath.Abs(cfg.data)
	if err != nil {
		data = cfg.data
	}
	return storekey.New(storekey.Config{Own: blobs.HostKeys(), OnlyOwn: cfg.usesOwnStoreKeys(),
		OnlyServers: cfg.storeFrom == storeKeysServer, Log: log.With("worker_id", cfg.name),
		Kept: keyring.New(data),
		Ask: func(ctx context.Context, have int64) (fleet.StoreCredentials, error) {
			return link.StoreCredentials(ctx, fleet.WorkerID(cfg.name), have)
		}})
}

// openStoreWith opens stores by a worker's credentials.
func openStoreWith(keys *storekey.Holder) func(context.Context, string) (blob.Store, error) {
	return func(ctx context.Context, url string) (blob.Store, error) {
		return blobs.OpenWith(ctx, url, keys)
	}
}
