package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestAptMirror(t *testing.T) {
	for what, c := range map[string]struct{ list, sources, want string }{
		"one line":   {list: "# deb http://no/ bookworm main\ndeb http://a/debian bookworm main contrib\n", want: "http://a/debian"},
		"options":    {list: "deb [arch=amd64 signed-by=/k] http://b/debian bookworm main # x\n", want: "http://b/debian"},
		"deb822":     {sources: "Types: deb\n# comment: x\nURIs: http://c/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\nURIs: http://s/\nSuites: bookworm-security\nComponents: main\n", want: "http://c/debian"},
		"disabled":   {sources: "Enabled: no\nTypes: deb\nURIs: http://d/\nSuites: bookworm\nComponents: main\n"},
		"others":     {list: "deb-src http://a/ bookworm main\ndeb http://a/ trixie main\ndeb http://a/ bookworm contrib\n"},
		"list first": {list: "deb http://e/ bookworm main\n", sources: "Types: deb\nURIs: http://f/\nSuites: bookworm\nComponents: main\n", want: "http://e/"},
		"none":       {},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "sources.list.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"sources.list": c.list, "sources.list.d/x.sources": c.sources} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := aptMirror(dir, "bookworm")
		if got != c.want || (c.want == "" && (!errs.Is(err, errs.NotFound) || errs.RemedyOf(err) == "")) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

func TestDebianTreeIsReused(t *testing.T) {
	o := DebianOptions{Include: []string{"b", "a"}, CacheDir: t.TempDir(), Mirror: "http://never.invalid/"}
	same := DebianOptions{Suite: "bookworm", Include: []string{"a", "b"}}
	cached := filepath.Join(o.CacheDir, same.cacheName())
	if err := os.Mkdir(cached, 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := Debian(t.Context(), o)
	if err != nil || string(got) != cached {
		t.Fatalf("%q, want %q: %v", got, cached, err)
	}
	if other := (&DebianOptions{Suite: "bookworm", Include: []string{"a"}}).cacheName(); other == same.cacheName() {
		t.Error("another list of packages has the same tree")
	}
}

func TestFailedBootstrapLeavesNothing(t *testing.T) {
	o := DebianOptions{CacheDir: t.TempDir(), Mirror: "http://127.0.0.1:1/debian"}
	if got, err := Debian(t.Context(), o); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("%q %v", got, err)
	}
	if left, err := os.ReadDir(o.CacheDir); err != nil || len(left) > 0 {
		t.Fatalf("left %v %v", left, err)
	}
}
