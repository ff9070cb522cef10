package lint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// link is a link of a document to another one of the repository, or to a place in it.
	link = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	// unsaid is what a heading loses in its anchor: all but letters, digits, hyphens and blanks.
	unsaid = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// TestLinksOfDocumentsLead follows each link in the documents that stays in the repository.
func TestLinksOfDocumentsLead(t *testing.T) {
	followed := 0
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, ":") {
				continue // somebody else's
			}
			followed++
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", path, m[1])
			} else if anchor != "" && !anchors(t, target)[anchor] {
				t.Errorf("%s: %s has no heading %q", path, target, anchor)
			}
		}
	}
	if followed < 20 {
		t.Fatalf("found only %d links", followed)
	}
}

// documents are all documents of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"),
		func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".md") {
				found = append(found, path)
			}
			return err
		})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// anchors are the places in a document that a link can lead to, by the rule of those who show it.
func anchors(t *testing.T, path string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		if heading := strings.TrimLeft(line, "#"); heading != line &&
			strings.HasPrefix(heading, " ") {
			name := strings.ToLower(unsaid.ReplaceAllString(strings.TrimSpace(heading), ""))
			found[strings.ReplaceAll(name, " ", "-")] = true
		}
	}
	return found
}
