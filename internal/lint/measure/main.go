// Command measure prints the figures of a tree of Go code that decision 0028 compares: how much
// there is of it, how wide it is, how it is commented, and how tangled internal/disk is.
//
//	go run ./internal/lint/measure [DIR]
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := run(os.Stdout, dir); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, dir string) error {
	var t tree
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return t.add(path, filepath.ToSlash(rel))
	})
	if err != nil {
		return err
	}
	disk, err := measurePackage(filepath.Join(dir, "internal/disk"), "Disk")
	if err != nil {
		return err
	}
	t.print(w)
	fmt.Fprintf(w, "%-56s %d\n%-56s %d of %d\n", "fields of disk.Disk", disk.fields,
		"arrows between files of internal/disk that go back", disk.back, disk.arrows)
	return nil
}

// tree is the sum over the files of a tree.
type tree struct {
	product, tests         size
	wide, comments, filled int
	longest                int // lines of the longest file of the product
	wideParameters         int // functions with more than five parameters
	wideInterfaces         int // of the product, with more than eight methods of their own
	bytes                  int // of the product
}

type size struct{ files, lines int }

// tabWidth is how wide a tab counts, as with the lint of widths.
const tabWidth = 4

func (t *tree) add(path, rel string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, data, parser.ParseComments)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	to := &t.product
	if isTest(rel) {
		to = &t.tests
	} else {
		t.longest = max(t.longest, len(lines))
		t.wideInterfaces += wideInterfaces(file)
		t.bytes += len(data)
	}
	to.files++
	to.lines += len(lines)
	for _, line := range lines {
		if strings.TrimSpace(line) != "" {
			t.filled++
		}
		if len([]rune(strings.ReplaceAll(line, "\t", strings.Repeat(" ", tabWidth)))) > 100 {
			t.wide++
		}
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			t.comments += set.Position(c.End()).Line - set.Position(c.Pos()).Line + 1
		}
	}
	t.wideParameters += wideFunctions(file)
	return nil
}

// isTest tells tests and what only serves them from the product.
func isTest(rel string) bool {
	if strings.HasSuffix(rel, "_test.go") || strings.HasPrefix(rel, "test/") ||
		strings.HasPrefix(rel, "internal/lint/") {
		return true
	}
	return slices.ContainsFunc(strings.Split(filepath.Dir(rel), "/"),
		func(dir string) bool { return strings.HasSuffix(dir, "test") })
}

func wideFunctions(file *ast.File) int {
	n := 0
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Type.Params.NumFields() > 5 {
			n++
		}
	}
	return n
}

func wideInterfaces(file *ast.File) int {
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		if i, ok := node.(*ast.InterfaceType); ok && i.Methods.NumFields() > 8 {
			n++
		}
		return true
	})
	return n
}

func (t *tree) print(w io.Writer) {
	fmt.Fprintf(w, "%-56s %d in %d files\n", "lines of the product", t.product.lines,
		t.product.files)
	fmt.Fprintf(w, "%-56s %d\n", "bytes of the product", t.bytes)
	fmt.Fprintf(w, "%-56s %d in %d files\n", "lines of tests and test support", t.tests.lines,
		t.tests.files)
	all := t.product.lines + t.tests.lines
	fmt.Fprintf(w, "%-56s %d (%.1f %%)\n", "lines over 100 columns", t.wide, percent(t.wide, all))
	fmt.Fprintf(w, "%-56s %.1f %%\n", "comments, of all lines that aren't blank",
		percent(t.comments, t.filled))
	fmt.Fprintf(w, "%-56s %d\n", "longest file of the product, lines", t.longest)
	fmt.Fprintf(w, "%-56s %d\n", "interfaces with more than 8 methods", t.wideInterfaces)
	fmt.Fprintf(w, "%-56s %d\n", "functions with more than 5 parameters", t.wideParameters)
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }
