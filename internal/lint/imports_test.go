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

// layers says what each part may import of ours. The longest matching prefix counts. What isn't named
// may be imported by nobody but cmd and tests.
var layers = map[string][]string{
	"api":               {},
	"client":            {"api"},
	"internal/x":        {"internal/x"},
	"internal/fleet":    {"internal/x"},
	"internal/guestapi": {"internal/fleet", "internal/x"},
	"internal/blob":     {"internal/blob", "internal/x"},
	"internal/disk":     {"internal/disk", "internal/blob", "internal/x"},
	"internal/image":    {"internal/disk", "internal/blob", "internal/x"},
	"internal/plan":     {"internal/plan", "internal/fleet", "internal/x"},
	"internal/state":    {"internal/state", "internal/fleet", "internal/x"},
	"internal/control":  {"internal/control", "internal/plan", "internal/state", "internal/disk", "internal/image", "internal/blob", "internal/fleet", "internal/x"},
	"internal/runtime":  {"internal/runtime", "internal/guestapi", "internal/fleet", "internal/x"},
	"internal/hostnet":  {"internal/hostnet", "internal/guestapi", "internal/fleet", "internal/x"},
	"internal/worker":   {"internal/worker", "internal/runtime", "internal/guestapi", "internal/blob", "internal/disk/format", "internal/fleet", "internal/x", "api"},
	"internal/platform": {"internal/platform", "api", "internal/guestapi", "internal/disk", "internal/blob", "internal/fleet", "internal/x"},
	"internal/httpapi":  {"internal/httpapi", "internal/fleet", "internal/guestapi", "internal/x", "api"},
	"internal/devfleet": {"internal/devfleet", "internal/runtime", "internal/x"},
	"internal/release":  {"internal/release", "internal/fleet", "internal/blob", "internal/x"},
	"cmd/sluice-init":   {"internal/platform", "internal/guestapi", "internal/fleet", "internal/x"},
	"cmd/sluice":        {"internal", "api", "client"},
	"internal/lint":     {},
	"test":              {"internal", "api", "client", "test"},

	// Parts of a part that may import less than it.
	"internal/disk/store": {"internal/disk/format", "internal/blob", "internal/x"},
}

func TestImportsGoOneWay(t *testing.T) {
	for _, s := range tree(t) {
		if s.isTest() {
			continue // tests may reach sideways for real parts
		}
		allowed, ok := layerOf(s.dir())
		if !ok {
			t.Errorf("%s: its package is in no layer; add it to internal/lint and docs/architecture.md", s.path)
			continue
		}
		for _, imp := range s.file.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			ours, ok := strings.CutPrefix(path, module)
			if ok && !slices.ContainsFunc(allowed, func(a string) bool { return within(ours, a) }) {
				t.Errorf("%s: imports %s, which its layer may not", s.path, ours)
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

func layerOf(dir string) ([]string, bool) {
	best := ""
	for layer := range layers {
		if within(dir, layer) && len(layer) > len(best) {
			best = layer
		}
	}
	return layers[best], best != ""
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func TestPlannerIsPure(t *testing.T) {
	banned := []string{"os", "net", "net/http", "io", "log/slog", "context", "math/rand", "sync", "golang.org/x/sync/errgroup"}
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

// TestGuestDependencies keeps what runs inside a VM small: each module that sluice-init links is on a list.
func TestGuestDependencies(t *testing.T) {
	list, err := os.ReadFile("testdata/sluice-init.modules")
	if err != nil {
		t.Fatal(err)
	}
	allowed := strings.Fields(string(list))
	cmd := exec.CommandContext(context.Background(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/sluice-init")
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
			t.Errorf("sluice-init links %s, which is not in internal/lint/testdata/sluice-init.modules", mod)
		}
	}
	for _, mod := range allowed {
		if !seen[mod] {
			t.Errorf("internal/lint/testdata/sluice-init.modules names %s, which sluice-init doesn't link", mod)
		}
	}
}
