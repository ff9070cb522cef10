package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// place is a file or folder of the repository that a document names.
var place = regexp.MustCompile("`((?:api|client|cmd|internal|scripts|test)/[A-Za-z0-9_./-]+)`")

// TestPlacesInDocumentsExist finds what has moved since a document was written. Decisions are of
// their time.
func TestPlacesInDocumentsExist(t *testing.T) {
	found := 0
	for _, path := range documents(t) {
		if filepath.Base(filepath.Dir(path)) == "decisions" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range place.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which isn't there", path, m[1])
			}
		}
	}
	if found < 40 {
		t.Fatalf("found only %d places", found)
	}
}
