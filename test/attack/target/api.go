package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/test/attack/footholds"
)

// serveAPI serves a fleet in memory with two tenants, and says what each has, as a
// footholds.Tenant.
func serveAPI(ctx context.Context, l net.Listener) (any, func() error, error) {
	f := httpapitest.New()
	t := footholds.Tenant{Host: "localhost", Secrets: []string{insideForeign, "env-of-net-theirs"}}
	worker := httptest.NewServer(inside(&t.Foreign))
	f.SetWorkerURL(worker.URL)
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	deps.Exposition = http.NotFoundHandler()
	a, err := httpapi.New(httpapi.Config{OperatorToken: "operator-token-of-the-target",
		Version: "v0.1.0", LongPoll: 100 * time.Millisecond}, deps)
	if err != nil {
		return nil, nil, err
	}
	for thing, network := range map[*footholds.Thing]string{&t.Own: "net-mine",
		&t.Foreign: "net-theirs"} {
		if err := furnish(ctx, f, thing, network); err != nil {
			return nil, nil, err
		}
	}
	t.Secrets = append(t.Secrets, t.Foreign.Secrets()...)
	secret := authz.NewSecret()
	t.Token = secret.Text
	err = f.CreateToken(ctx, fleet.Token{ID: fleet.TokenID(secret.ID), Name: "tenant",
		Hash: secret.Hash, CreatedAt: time.Now(),
		Grants: []fleet.Grant{{Network: "net-mine", Verb: "admin"}}})
	if err != nil {
		return nil, nil, fmt.Errorf("make a token: %w", err)
	}
	t.Routes = append(a.Routes(), a.InsideRoutes()...)
	overTLS := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{}
		a.ServeHTTP(w, r)
	})
	return t, func() error {
		defer worker.Close()
		return served(ctx, l, overTLS)
	}, nil
}

// furnish makes one of each thing in a network.
func furnish(ctx context.Context, f *httpapitest.Fleet, t *footholds.Thing, network string) error {
	t.Network, t.App, t.Name = network, "app-"+network, "machine-of-"+network
	v, err := f.CreateMachine(ctx, fleet.CreateMachine{Name: fleet.MachineName(t.Name),
		App: fleet.AppName(t.App), Network: fleet.NetworkName(network),
		Config: fleet.MachineConfig{Image: "base",
			Env: map[string]string{"E": "env-of-" + network}}})
	if err != nil {
		return fmt.Errorf("make a machine: %w", err)
	}
	t.Machine = string(v.Machine.ID)
	move, err := f.Migrate(ctx, t.Machine, "w2")
	if err != nil {
		return fmt.Errorf("move it: %w", err)
	}
	f.Update(func(tx *httpapitest.Tx) { // so that it can be asked
		tx.Machines[v.Machine.ID].Machine.State = fleet.MachineStarted
	})
	t.Move = string(move.Move.ID)
	secret := authz.NewSecret()
	t.Token, t.TokenID = "token-of-"+network, secret.ID
	return f.CreateToken(ctx, fleet.Token{ID: fleet.TokenID(secret.ID), Name: t.Token,
		Hash: secret.Hash, CreatedAt: time.Now(), Grants: []fleet.Grant{{
			Network: fleet.NetworkName(network), Verb: "read"}}})
}

// inside answers for machines as a worker does: for the foreign one with what nobody else may read.
func inside(foreign *footholds.Thing) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/machines/{id}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == foreign.Machine {
			_, _ = io.WriteString(w, insideForeign) // who went needs no answer
		}
	})
	return mux
}

const insideForeign = "inside-of-the-foreign-one"
