package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestAptMirror(t *testing.T) {
	for what, c := range map[string]struct{ list, sources, want string }{
		"one line": {
			list: "# deb http://no/ bookworm main\ndeb http://a/debian bookworm main contrib\n",
			want: "http://a/debian"},
		"options": {list: "deb [arch=amd64 signed-by=/k] http://b/debian bookworm main # x\n",
			want: "http://b/debian"},
		"deb822": {
			sources: "Types: deb\n# comment: x\nURIs: http://c/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\nURIs: http://s/\nSuites: bookworm-security\nComponents: main\n", want: "http://c/debian"},
		"disabled": {
			sources: "Enabled: no\nTypes: deb\nURIs: http://d/\nSuites: bookworm\nComponents: main\n"},
		"others": {
			list: "deb-src http://a/ bookworm main\ndeb http://a/ trixie main\ndeb http://a/ bookworm contrib\n"},
		"list first": {list: "deb http://e/ bookworm main\n",
			sources: "Types: deb\nURIs: http://f/\nSuites: bookworm\nComponents: main\n",
			want:    "http://e/"},
		"none": {},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "sources.list.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"sources.list": c.list,
			"sources.list.d/x.sources": c.sources} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := aptMirror(dir, "bookworm")
		if got != c.want || (c.want == "" &&
			(!errs.Is(err, errs.NotFound) || errs.RemedyOf(err) == "")) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

func TestSourcesList(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "debootstrap"),
		[]byte("#!/bin/sh\nX=1\nDEF_MIRROR=\"http://public.example/debian\"\n"),
		0o755); err != nil { //nolint:gosec // it stands for a program
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ path, asked, want string }{
		"asked for": {bin, "http://asked.example/debian",
			"deb http://asked.example/debian trixie main"},
		"the default":  {bin, "", "deb http://public.example/debian trixie main"},
		"none is said": {t.TempDir(), "", "# Name a mirror: deb URL trixie main"},
	} {
		t.Setenv("PATH", c.path)
		if got := sourcesList("trixie", c.asked); !strings.HasSuffix(got, "\n"+c.want+"\n") {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// fakeHost puts programs in the way of those that make a Debian, which note how they were called.
func fakeHost(t *testing.T, broken string) (calls func() string) {
	t.Helper()
	bin, log := t.TempDir(), filepath.Join(t.TempDir(), "calls")
	for name, body := range map[string]string{
		"debootstrap": `sync; for d; do case $d in */tree) mkdir -p "$d/etc/apt" "$d/var/cache/apt/archives"; echo base >"$d/base"; echo x >"$d/var/cache/apt/archives/a.deb";; esac; done; echo "I: Retrieving a"; echo "I: Configuring a"`,
		"sync":        "",
		"sh":          `shift; shift; shift; tree=$1; shift; shift; for p; do echo "$p" >>"$tree/added"; done; echo "Get:1 a"; echo "Setting up a"`,
	} {
		fail := ""
		if name == broken {
			fail = "; echo E: it is broken; exit 1"
		}
		said := `"${@: -1}"`
		if name == "sync" {
			said = `"$1"` // of the whole host it would be nothing
		}
		script := "#!/bin/bash\necho " + name + " " + said + " >>" + log + "\n" + body + fail + "\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script),
			0o755); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return func() string {
		said, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		_ = os.Remove(log)
		return strings.ReplaceAll(string(said), "\n", ";")
	}
}

// Another list of packages begins with the base that there is, and the same list makes nothing at
// all.
func TestPackagesAreAddedToTheCachedBase(t *testing.T) {
	calls := fakeHost(t, "")
	var steps []string
	o := DebianOptions{Cache: Cache{Dir: t.TempDir()}, Mirror: "http://m.example/debian",
		Step: func(s string) { steps = append(steps, s) }}
	for _, c := range []struct {
		include      []string
		calls, added string
	}{
		{[]string{"b", "a", "a"}, "debootstrap http://m.example/debian;sync -f;sh b;", "a\nb\n"},
		{[]string{"a", "b"}, "", "a\nb\n"},
		{[]string{"c"}, "sh c;", "c\n"},
		{nil, "", ""},
	} {
		o.Include = c.include
		tree, err := Debian(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := calls(); got != c.calls {
			t.Errorf("%v: ran %q, want %q", c.include, got, c.calls)
		}
		if added, err := os.ReadFile(filepath.Join(tree.Dir(), "added")); string(
			added) != c.added || err != nil && c.added != "" {
			t.Errorf("%v: added %q: %v", c.include, added, err)
		}
		if base, err := os.ReadFile(filepath.Join(tree.Dir(), "base")); err != nil ||
			string(base) != "base\n" {
			t.Errorf("%v: no base: %v", c.include, err)
		}
		if left, err := filepath.Glob(filepath.Join(tree.Dir(),
			"var/cache/apt/archives/*")); err != nil || len(left) > 0 {
			t.Errorf("%v: left %v %v", c.include, left, err)
		}
		if err := tree.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(steps[:5],
		"; "); got != "fetching packages; configuring packages; copying the minimal Debian; fetching packages; configuring packages" {
		t.Errorf("steps: %s", got)
	}
}

func TestFailedDebianLeavesNothing(t *testing.T) {
	for broken, want := range map[string]int{"debootstrap": 0, "sh": 1} { // the base is whole
		calls := fakeHost(t, broken)
		o := DebianOptions{Cache: Cache{Dir: t.TempDir()}, Mirror: "http://m.example/debian",
			Include: []string{"a"}}
		if _, err := Debian(t.Context(), o); !errs.Is(err, errs.Unavailable) ||
			!strings.Contains(err.Error(), "it is broken") {
			t.Errorf("%s: %v", broken, err)
		}
		calls()
		if left, err := os.ReadDir(o.Cache.Dir); err != nil || len(left) != want {
			t.Errorf("%s: left %v %v", broken, left, err)
		}
	}
}
