package etcdstate

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// DialConfig says how to reach an etcd of yours.
type DialConfig struct {
	Endpoints []string
	// Prefix is put before every key, so that several fleets, or others, can share one etcd.
	Prefix string
	// TLS is nil for plain connections.
	TLS *tls.Config
	// Username and Password are empty where etcd has no authentication.
	Username, Password string
	// Log receives the client's warnings, at level debug; nil drops them.
	Log *slog.Logger
}

// Dial connects to external endpoints and makes sure that a linearizable read works.
func Dial(ctx context.Context, cfg DialConfig) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errs.New(errs.Invalid, "no etcd endpoints")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
		Logger:      newZapLogger(cfg.Log),
		DialTimeout: requestTimeout,
		// A dead connection is noticed after 10 + 5 s; etcd's servers refuse pings more often than
		// each 5 s.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "configure the etcd client")
	}
	s := newStore(client, cfg.Prefix)
	if _, err := s.Get(ctx, "probe"); err != nil && !errs.Is(err, errs.NotFound) {
		_ = s.Close() // never fails; err is what matters
		return nil, errs.Wrap(errs.KindOf(err), err, "reach etcd at %v", cfg.Endpoints).
			WithRemedy("check the endpoints, and that a majority of that etcd is up")
	}
	return s, nil
}
