package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMakeRunsNothingThatIsInItsVariables gives make's ARGS what a shell would run, in a recipe as
// bench has.
func TestMakeRunsNothingThatIsInItsVariables(t *testing.T) {
	dir := t.TempDir()
	probe := filepath.Join(dir, "probe.mk")
	if err := os.WriteFile(probe, []byte(
		"show: ; @scripts/with-args.sh printf '<%s>' \"$$DEMO_DIR\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args string) string {
		cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "-f", "Makefile",
			"-f", probe, "show",
			"ARGS="+args, "DEMO_DIR=/a b;echo ran")
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("ARGS=%s: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for args, want := range map[string]string{
		``:                          ``,
		`-run A|echo -v`:            `<-run><A|echo><-v>`,
		`-run 'A B;echo' "-x=$y z"`: `<-run><A B;echo><-x=$y z>`,
		"-run `id` $(id) A$ *":      "<-run><`id`><$(id)><A$><*>",
		`-run ^\(A\)\$`:             `<-run><^(A)$>`,
	} {
		if got := run(args); got != "</a b;echo ran>"+want {
			t.Errorf("ARGS=%s: %s, want %s", args, got, want)
		}
	}
}

// TestRecipesHaveNoVariablesInTheirText: what a caller gives would be the shell's to run.
func TestRecipesHaveNoVariablesInTheirText(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`\$[({](\w+)`)
	for i, line := range strings.Split(string(text), "\n") {
		for _, m := range variable.FindAllStringSubmatch(line, -1) {
			if strings.HasPrefix(line, "\t") && m[1] != "MAKEFILE_LIST" {
				t.Errorf("Makefile:%d: $(%s) in a recipe; export it, and let the script read it",
					i+1, m[1])
			}
		}
	}
}
