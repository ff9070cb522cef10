package attack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/test/attack/footholds"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestOutsideOfAFleet makes the attempts of a tenant, and of who supplies images, on a real fleet.
// The tenant's are made last, for they want to destroy what is there.
func TestOutsideOfAFleet(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1})
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("image", func(t *testing.T) {
		supply := &footholds.Image{Canary: filepath.Join(t.TempDir(), "canary"),
			Memory: func() (int64, error) { return residentOf(s.Server.PID) }}
		n := 0
		supply.Create = func(ctx context.Context, archive io.Reader) (string, string, error) {
			n++
			_, err := f.CreateImage(ctx, fmt.Sprint("evil-", n), 16<<20, archive)
			var told *api.Error
			if errors.As(err, &told) {
				return told.Code, told.Error(), nil
			}
			return "", "", err
		}
		if err := supply.Prepare(); err != nil {
			t.Fatal(err)
		}
		mustBeRefused(t, supply.Attempts())
	})
	t.Run("tenant", func(t *testing.T) { mustBeRefused(t, tenantIn(t, f).Attempts()) })
}

// mark is what the foreign machine alone has.
const mark = "mark-of-the-foreign-machine"

// tenantIn makes two tenants in a fleet, of which one attacks the other.
func tenantIn(t *testing.T, f *fleettest.Fleet) *footholds.Tenant {
	t.Helper()
	tenant := &footholds.Tenant{Secrets: []string{mark}, Routes: documented(t)}
	for thing, network := range map[*footholds.Thing]string{&tenant.Own: "net-mine",
		&tenant.Foreign: "net-theirs"} {
		furnish(t, f, thing, network)
	}
	tenant.Secrets = append(tenant.Secrets, tenant.Foreign.Secrets()...)
	made, err := f.CreateToken(t.Context(), api.CreateToken{Name: "tenant",
		Grants: []api.Grant{{Network: "net-mine", Verb: "admin"}}})
	if err != nil {
		t.Fatal(err)
	}
	tenant.Token = made.Token
	at, err := client.ReadFleetFile(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(at.CA) {
		t.Fatal("the fleet's authority can't be read")
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	tenant.Host = s.ServerHost()
	tenant.Dial = func(ctx context.Context) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
		return d.DialContext(ctx, "tcp", tenant.Host)
	}
	return tenant
}

// furnish makes a machine that serves its mark, and a token, in a network.
func furnish(t *testing.T, f *fleettest.Fleet, thing *footholds.Thing, network string) {
	t.Helper()
	m, err := f.CreateMachine(t.Context(), api.CreateMachine{Name: "machine-of-" + network,
		App: "app-" + network, Network: network, Config: api.MachineConfig{Image: fleettest.Image,
			CPUs: 0.25, MemoryMiB: 128, Services: []api.Service{{Name: "web", HTTPPort: 8080,
				Cmd:   []string{"httpd", "-f", "-p", "8080", "-h", "/srv"},
				Check: &api.Check{Kind: "tcp", Port: 8080}}}}})
	if err != nil {
		t.Fatal(err)
	}
	f.WaitHealthy(m.ID, 2*time.Minute)
	f.Run(m.ID, "sh", "-c", "mkdir -p /srv; echo "+mark+" > /srv/index.html")
	made, err := f.CreateToken(t.Context(), api.CreateToken{Name: "token-of-" + network,
		Grants: []api.Grant{{Network: network, Verb: "read"}}})
	if err != nil {
		t.Fatal(err)
	}
	*thing = footholds.Thing{Network: network, App: m.App, Machine: m.ID, Name: m.Name,
		Move: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Token: made.Name, TokenID: made.ID}
	if network == "net-mine" { // its own tenant may read it
		f.Run(m.ID, "sh", "-c", "echo mine > /srv/index.html")
	}
}

// documented returns all calls of the API's own description.
func documented(t *testing.T) []string {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}
