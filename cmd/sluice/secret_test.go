package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestSecretsComeFromStdinOrAFile: a value is never an argument, and never in what is printed.
func TestSecretsComeFromStdinOrAFile(t *testing.T) {
	c, of := newCLI(t), fleet.SecretScope{Network: "prod", App: "shop"}
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("from-a-file\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.stdin = "from-stdin\n"
	if _, stderr, code := c.run("secret", "set", "A", "--network", "prod", "--app",
		"shop"); code != exitNotFound || !strings.Contains(stderr, "--new") {
		t.Errorf("for an app of which there is nothing: exit %d, %s", code, stderr)
	}
	c.must("secret", "set", "FIRST", "--network", "prod", "--app", "shop", "--new")
	for _, s := range []struct {
		args []string
		want string
	}{{[]string{"secret", "set", "A"}, "from-stdin"},
		{[]string{"secret", "set", "A", "@" + file}, "from-a-file\n"}} {
		for _, flag := range [][]string{nil, {"--json"}} {
			args := append(append(s.args, "--network", "prod", "--app", "shop"), flag...)
			if out := c.must(args...); strings.Contains(out, s.want) {
				t.Errorf("%v prints it: %s", args, out)
			}
			if got := c.fleet.SecretValue(of, "A"); got != s.want {
				t.Errorf("%v sets %q, want %q", args, got, s.want)
			}
		}
	}
	before := c.fleet.Mutations()
	for _, args := range [][]string{{"secret", "set", "A", "on-the-line"}, {"secret", "set"},
		{"secret", "set", "A=on-the-line"}, {"secret", "set", "A", "@/no/such/file"}} {
		args = append(args, "--network", "prod", "--app", "shop")
		_, stderr, code := c.run(args...)
		if code == 0 || strings.Contains(stderr, "on-the-line") {
			t.Errorf("%v: exit %d, %s", args, code, stderr)
		}
	}
	if _, _, code := c.run("secret", "set", "A", "--app", "shop"); code != 2 {
		t.Errorf("without a network: exit %d", code)
	}
	if c.fleet.Mutations() != before {
		t.Error("what is refused changes something")
	}
	if out := c.must("secret", "list", "--network", "prod", "--app", "shop"); !strings.Contains(out,
		"A ") || strings.Contains(out, "from-") {
		t.Errorf("the list: %s", out)
	}
	c.must("secret", "unset", "A", "--network", "prod", "--app", "shop")
	if got := c.fleet.SecretValue(of, "A"); got != "" {
		t.Errorf("it is still %q", got)
	}
}

// TestADiskKeyGoesIntoANewFile: it is in no output, in a file for its owner alone, and replaces
// none.
func TestADiskKeyGoesIntoANewFile(t *testing.T) {
	c := story(t)
	file := filepath.Join(t.TempDir(), "web.key")
	out := c.must("machine", "disk-key", "web-1", "--out", file, "--json")
	data, err := os.ReadFile(file)
	if err != nil || len(data) != 65 || strings.Contains(out, string(data[:8])) {
		t.Fatalf("%d bytes in the file, %v; printed: %s", len(data), err, out)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	before := c.fleet.Mutations()
	if _, stderr, code := c.run("machine", "disk-key", "web-1", "--out", file); code != 4 ||
		!strings.Contains(stderr, "try:") || c.fleet.Mutations() != before {
		t.Errorf("into a file that is there: exit %d, %s", code, stderr)
	}
	none := filepath.Join(t.TempDir(), "none.key")
	if _, _, code := c.run("machine", "disk-key", "nobody", "--out", none); code != 3 {
		t.Errorf("of no machine: exit %d", code)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a file without a key is left")
	}
}
