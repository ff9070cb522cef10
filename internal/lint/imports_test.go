package lint

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluice-platform/sluice/"

// alone are the layers that use nothing of anybody else's: what is written down in them must
// outlive every library.
var alone = []string{"api", "internal/fleet", "internal/plan"}

func TestImportsGoOneWay(t *testing.T) {
	layers := architecture(t)
	for _, s := range tree(t) {
		if s.isTest() {
			continue // tests may reach sideways for real parts
		}
		layer, ok := layerOf(layers, s.dir())
		if !ok {
			t.Errorf("%s: its package is in no row of the table in docs/architecture.md", s.path)
			continue
		}
		allowed := append(layers[layer], layer)
		for _, imp := range s.file.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			ours, ok := strings.CutPrefix(path, module)
			if ok && !slices.ContainsFunc(allowed, func(a string) bool { return within(ours, a) }) {
				t.Errorf("%s: imports %s, which its layer may not; see docs/architecture.md",
					s.path, ours)
			}
			if !ok && strings.Contains(path, ".") && slices.Contains(alone, layer) {
				t.Errorf("%s: imports %s; %s uses the standard library only", s.path, path, layer)
			}
			if path == "C" {
				t.Errorf("%s: cgo", s.path)
			}
			if strings.HasPrefix(path, "go.etcd.io/") && !within(s.dir(), "internal/state") {
				t.Errorf("%s: imports etcd, which only internal/state may", s.path)
			}
			if strings.HasPrefix(path, "github.com/aws/") && !within(s.dir(), "internal/blob") {
				t.Errorf("%s: imports the AWS SDK, which only internal/blob may", s.path)
			}
		}
	}
}

// layerOf returns the row that a folder belongs to: the longest one that it is in.
func layerOf(layers map[string][]string, dir string) (string, bool) {
	best := ""
	for layer := range layers {
		if within(dir, layer) && len(layer) > len(best) {
			best = layer
		}
	}
	return best, best != ""
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func TestPlannerIsPure(t *testing.T) {
	banned := []string{"os", "net", "net/http", "io", "log/slog", "context", "math/rand", "sync",
		"golang.org/x/sync/errgroup"}
	for _, s := range tree(t) {
		if s.isTest() || !within(s.dir(), "internal/plan") {
			continue
		}
		for _, imp := range s.file.Imports {
			if path := strings.Trim(imp.Path.Value, `"`); slices.Contains(banned, path) {
				t.Errorf("%s: the planner is pure and doesn't import %s", s.path, path)
			}
		}
	}
}

// TestGuestDependencies keeps what runs inside a VM small: each module that sluice-init links is on
// a list.
func TestGuestDependencies(t *testing.T) {
	list, err := os.ReadFile("testdata/sluice-init.modules")
	if err != nil {
		t.Fatal(err)
	}
	allowed := strings.Fields(string(list))
	cmd := exec.CommandContext(context.Background(), "go", "list", "-deps", "-f",
		"{{with .Module}}{{.Path}}{{end}}", "./cmd/sluice-init")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list dependencies of sluice-init: %v", err)
	}
	seen := map[string]bool{}
	for _, mod := range strings.Fields(string(out)) {
		if seen[mod] || mod+"/" == module {
			continue
		}
		seen[mod] = true
		if !slices.Contains(allowed, mod) {
			t.Errorf(
				"sluice-init links %s, which is not in internal/lint/testdata/sluice-init.modules",
				mod)
		}
	}
	for _, mod := range allowed {
		if !seen[mod] {
			t.Errorf(
				"internal/lint/testdata/sluice-init.modules names %s, which sluice-init doesn't link", mod)
		}
	}
}
