package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tableHead begins the table of docs/architecture.md that says which folder may import which.
const tableHead = "| folder | what | may import (ours) |"

// folder is the name of one folder in a cell of that table.
var folder = regexp.MustCompile("`([a-z0-9/-]+)`")

// architecture returns, per folder of the table in docs/architecture.md, the folders that its
// packages may import beside their own. The table is the only place where that is written down.
func architecture(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), tableHead+"\n")
	if !ok {
		t.Fatalf("docs/architecture.md has no table that begins with %q", tableHead)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	layers := map[string][]string{}
	for _, row := range strings.Split(table, "\n")[1:] {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if len(cells) != 3 {
			t.Fatalf("docs/architecture.md: the row %q has not three cells", row)
		}
		layers[names(cells[0])[0]] = names(cells[2])
	}
	if len(layers) < 20 {
		t.Fatalf("docs/architecture.md: the table has %d folders only", len(layers))
	}
	return layers
}

// names returns the folders that a cell names.
func names(cell string) []string {
	var list []string
	for _, m := range folder.FindAllStringSubmatch(cell, -1) {
		list = append(list, m[1])
	}
	return list
}

// TestEveryFolderOfTheTableIsThere finds rows, and permissions, of what has been renamed or
// removed.
func TestEveryFolderOfTheTableIsThere(t *testing.T) {
	for layer, allowed := range architecture(t) {
		for _, dir := range append(allowed, layer) {
			if _, err := os.Stat(filepath.Join(root, dir)); err != nil {
				t.Errorf("docs/architecture.md names %s, which isn't there", dir)
			}
		}
	}
}

// TestPermissionsAreUsed keeps the table true: what no package makes use of is not allowed.
func TestPermissionsAreUsed(t *testing.T) {
	layers, used := architecture(t), map[string]bool{}
	for _, s := range tree(t) {
		layer, _ := layerOf(layers, s.dir())
		if s.isTest() {
			continue
		}
		for _, imp := range s.file.Imports {
			ours, ok := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			for _, a := range layers[layer] {
				if ok && within(ours, a) {
					used[layer+" "+a] = true
				}
			}
		}
	}
	for layer, allowed := range layers {
		for _, a := range allowed {
			if !used[layer+" "+a] {
				t.Errorf("docs/architecture.md lets %s import %s, which it doesn't", layer, a)
			}
		}
	}
}
