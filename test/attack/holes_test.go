package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/test/attack/footholds"
)

// mustBeRefused fails the test for each attempt that gets on.
func mustBeRefused(t *testing.T, all []footholds.Attempt) {
	t.Helper()
	for _, a := range all {
		t.Run(a.Name, func(t *testing.T) {
			for _, f := range footholds.Make(t.Context(), []footholds.Attempt{a}) {
				t.Error(f.What)
			}
		})
	}
	t.Logf("%d attempts", len(all))
}

// mustBeFound makes the attempts that should find holes, and fails the test for each that doesn't.
func mustBeFound(t *testing.T, all []footholds.Attempt, holes []Hole) {
	t.Helper()
	all = slices.DeleteFunc(slices.Clone(all), func(a footholds.Attempt) bool {
		return !slices.ContainsFunc(holes,
			func(h Hole) bool { return slices.Contains(h.Found, a.Name) })
	})
	var names []string
	for _, f := range footholds.Make(t.Context(), all) {
		names = append(names, f.Name)
		t.Logf("%s: %.300s", f.Name, strings.ReplaceAll(f.What.Error(), "\n", " "))
	}
	for _, h := range holes {
		for _, want := range h.Found {
			if !slices.Contains(names, want) {
				t.Errorf("%s: %q was refused all the same", h.Name, want)
			}
		}
	}
}

func tenantOf(t *testing.T, g *target) *footholds.Tenant {
	t.Helper()
	var tenant footholds.Tenant
	if err := json.Unmarshal(g.about, &tenant); err != nil {
		t.Fatal(err)
	}
	tenant.Dial = g.dial
	return &tenant
}

// TestTenantOfAnAPI: a tenant gets at nothing of another's by the API alone, on a fleet in memory.
func TestTenantOfAnAPI(t *testing.T) {
	mustBeRefused(t, tenantOf(t, startTarget(t, "api", "tcp", nil)).Attempts())
}

func nbdOf(t *testing.T, g *target) *footholds.NBD {
	t.Helper()
	n := &footholds.NBD{Dial: g.dial, Export: "a", Size: 64 << 20, Memory: g.memory}
	if err := n.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNBDClient: a client of an NBD server harms neither the server nor another client's disk.
func TestNBDClient(t *testing.T) {
	mustBeRefused(t, nbdOf(t, startTarget(t, "nbd", "unix", nil)).Attempts())
}

func imageOf(t *testing.T, g *target) *footholds.Image {
	t.Helper()
	i := &footholds.Image{Canary: filepath.Join(t.TempDir(), "canary"), Memory: g.memory,
		Create: func(ctx context.Context, archive io.Reader) (string, string, error) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://target/", archive)
			if err != nil {
				return "", "", err
			}
			resp, err := g.client().Do(r)
			if err != nil {
				return "", "", err
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
			code, text, _ := strings.Cut(string(answer), "\n")
			return code, text, err
		}}
	if err := i.Prepare(); err != nil {
		t.Fatal(err)
	}
	return i
}

// TestImageSupplier: whatever an archive holds, it is refused or becomes an image, and the host
// that builds it stays as it was.
func TestImageSupplier(t *testing.T) {
	mustBeRefused(t, imageOf(t, startTarget(t, "image", "unix", nil)).Attempts())
}
