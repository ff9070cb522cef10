package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/worker"
	"github.com/sluice-platform/sluice/internal/worker/serverlink"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bounds of a worker's connections: the server's, and scrapers'.
var workerConnections = connlimit.Config{Total: 4096, Unknown: 256}

// secured makes the worker's listener speak TLS, and bounds its connections.
func secured(plain net.Listener, held *identity.Held) net.Listener {
	return tls.NewListener(connlimit.Listen(plain, workerConnections), identity.ServerConfig(held))
}

// renewing is a worker's identity that renews itself over the worker's link.
type renewing struct {
	*identity.Held
	link *serverlink.Link
}

var _ worker.Identity = renewing{}

// Renew implements worker.Identity.
func (r renewing) Renew(ctx context.Context) error {
	err := r.Held.Renew(ctx, func(ctx context.Context, request []byte) (identity.Answer, error) {
		return r.link.Renew(ctx, fleet.WorkerID(r.Name().Worker), request)
	})
	if err == nil {
		r.link.Redial() // what was opened with the old certificate ends with it
	}
	return err
}

// connect returns the worker's identity, and a link to the server that shows it.
func (cfg *workerConfig) connect(ctx context.Context, log *slog.Logger) (*identity.Held,
	*serverlink.Link, error) {
	held, err := cfg.findIdentity(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	link, err := serverlink.New(cfg.server, identity.ClientConfig(held, identity.IsServer))
	return held, link, err
}

// findIdentity returns the identity that the worker has, or gets it one by its join token. A token
// that has not been used yet comes before what the worker has.
func (cfg *workerConfig) findIdentity(ctx context.Context, log *slog.Logger) (*identity.Held,
	error) {
	dir := filepath.Join(cfg.data, "identity")
	held, err := identity.Load(dir, nil)
	if err != nil && !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	if err == nil && held.Name().Worker != cfg.name {
		return nil, errs.New(errs.Conflict, "%s has the certificate of worker %s, and not of %s",
			dir, held.Name().Worker, cfg.name).
			WithRemedy("use --name %s, or another --data", held.Name().Worker)
	}
	if cfg.joinToken == "" && held != nil {
		return held, nil
	}
	if cfg.joinToken == "" {
		return nil, errs.New(errs.NotFound, "worker %s has no certificate in %s, and no join token",
			cfg.name, dir).
			WithRemedy("sluice worker token create --name %s, and give the token in a file with --join-token-file",
				cfg.name)
	}
	text, err := readToken(cfg.joinToken)
	if err != nil && held != nil {
		return held, nil // a token that has done its work may be removed
	} else if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "join the fleet").
			WithRemedy("sluice worker token create --name %s > %s", cfg.name, cfg.joinToken)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		return nil, err
	}
	if held != nil && held.Token() == token.ID {
		return held, nil
	}
	// Whoever joins anew may do so because its keys leaked. The tunnel's go before the certificate
	// comes, so that a death in between keeps none.
	if err := tunnel.ForgetKeys(cfg.data); err != nil {
		return nil, err
	}
	joined, err := cfg.enroll(ctx, dir, token, text, func(err error) bool {
		if held == nil {
			return errs.Is(err, errs.Unavailable)
		}
		// The token's server has answered, and the certificate isn't of its authority. Soon it
		// knows that this worker can't be alive.
		return errs.Is(err, errs.Conflict) && !held.Trusts(token.Authority)
	}, log)
	if err != nil && held != nil {
		log.WarnContext(ctx, "the join token is not taken; the present certificate is used", "error",
			err, "remedy", errs.RemedyOf(err))
		return held, nil
	}
	return joined, err
}

// enroll gets a certificate by a join token. It tries again after the errors for which again holds.
func (cfg *workerConfig) enroll(ctx context.Context, dir string, token identity.Token, text string,
	again func(error) bool, log *slog.Logger) (*identity.Held, error) {
	link, err := serverlink.New(cfg.server, identity.JoiningConfig(token))
	if err != nil {
		return nil, err
	}
	defer link.Close()
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		held, err := identity.Join(ctx, dir, token,
			func(ctx context.Context, request []byte) (identity.Answer, error) {
				return link.Enroll(ctx, fleet.EnrollRequest{Worker: fleet.WorkerID(cfg.name),
					Token: text, Request: string(request)})
			})
		if err == nil || !again(err) {
			return held, err
		}
		log.WarnContext(ctx, "the server does not answer the join, or not yet as is wanted",
			"error", err)
		if err := backoff.Sleep(ctx, pause.Next()); err != nil {
			return nil, errs.Wrap(errs.Unavailable, err, "join the fleet")
		}
	}
}
