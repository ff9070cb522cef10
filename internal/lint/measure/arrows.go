package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// tangle is how a package's files use each other.
type tangle struct {
	fields int // of its chief type
	arrows int // pairs of files of which one uses what the other declares
	back   int // those that go against the best order of the files that was found
}

// measurePackage reads the package in a folder; chief is the struct whose fields are counted.
func measurePackage(dir, chief string) (tangle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return tangle{}, err
	}
	set := token.NewFileSet()
	matches, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return tangle{}, err
	}
	var files []*ast.File
	for _, path := range matches {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return tangle{}, err
		}
		files = append(files, file)
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	// An import that can't be read leaves the package's own names as they are.
	cfg := types.Config{Importer: importer.ForCompiler(set, "source", nil), Error: func(error) {}}
	pkg, _ := cfg.Check(dir, set, files, &info)
	if pkg == nil {
		return tangle{}, fmt.Errorf("%s: %w", dir, fs.ErrInvalid)
	}
	uses := usesOf(set, pkg, &info)
	t := tangle{fields: fieldsOf(pkg, chief)}
	for _, to := range uses {
		t.arrows += len(to)
	}
	t.back = backArrows(uses)
	return t, nil
}

func fieldsOf(pkg *types.Package, name string) int {
	obj := pkg.Scope().Lookup(name)
	if obj == nil {
		return 0
	}
	s, ok := obj.Type().Underlying().(*types.Struct)
	if !ok {
		return 0
	}
	return s.NumFields()
}

// usesOf has, for each file, the files whose functions, methods, types, variables and constants it
// uses. Fields don't count: who may touch these is the type's matter.
func usesOf(set *token.FileSet, pkg *types.Package,
	info *types.Info) map[string]map[string]bool {
	uses := map[string]map[string]bool{}
	for id, obj := range info.Uses {
		if obj.Pkg() != pkg || !topLevel(pkg, obj) {
			continue
		}
		from, to := set.Position(id.Pos()).Filename, set.Position(obj.Pos()).Filename
		if from == to {
			continue
		}
		if uses[from] == nil {
			uses[from] = map[string]bool{}
		}
		uses[from][to] = true
	}
	return uses
}

func topLevel(pkg *types.Package, obj types.Object) bool {
	if f, ok := obj.(*types.Func); ok {
		return f.Signature().Recv() != nil || obj.Parent() == pkg.Scope()
	}
	return obj.Parent() == pkg.Scope()
}

// backArrows puts the files into an order that has few arrows against it, and counts those: those
// that use nothing last, those that nothing uses first, else the one with most arrows out over in
// (Eades, Lin, Smyth, 1993).
func backArrows(uses map[string]map[string]bool) int {
	left := map[string]bool{}
	for from, tos := range uses {
		left[from] = true
		for to := range tos {
			left[to] = true
		}
	}
	var first, last []string
	for len(left) > 0 {
		name, end := nextFile(uses, left)
		delete(left, name)
		if end {
			last = append(last, name)
		} else {
			first = append(first, name)
		}
	}
	slices.Reverse(last)
	at := map[string]int{}
	for i, name := range append(first, last...) {
		at[name] = i
	}
	back := 0
	for from, tos := range uses {
		for to := range tos {
			if at[to] < at[from] {
				back++
			}
		}
	}
	return back
}

// nextFile chooses among the files that have no place yet; end: its place is before the last ones.
func nextFile(uses map[string]map[string]bool, left map[string]bool) (name string, end bool) {
	best, bestScore := "", 0
	for _, file := range slices.Sorted(maps.Keys(left)) {
		out, in := 0, 0
		for other := range left {
			if uses[file][other] {
				out++
			}
			if uses[other][file] {
				in++
			}
		}
		switch {
		case out == 0:
			return file, true
		case in == 0:
			return file, false
		case best == "" || out-in > bestScore:
			best, bestScore = file, out-in
		}
	}
	return best, false
}
