package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines     = 800
	maxFunctionLines = 120
	docFunctionLines = 60 // beyond it a function is too long to be read at once; see longFunctions
)

func TestEveryPackageIsDocumentedOnce(t *testing.T) {
	docs := map[string]int{}
	for _, s := range tree(t) {
		if s.isTest() {
			continue
		}
		docs[s.dir()] += 0
		if s.file.Doc != nil {
			docs[s.dir()]++
		}
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s: %d package comments, want one", dir, n)
		}
	}
}

func TestFilesAndFunctionsAreSmall(t *testing.T) {
	long := 0
	for _, s := range tree(t) {
		if n := s.lines(s.file); n > maxFileLines {
			t.Errorf("%s: %d lines, at most %d", s.path, n, maxFileLines)
		}
		if s.isTest() {
			continue
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.lines(fn)
			if n > maxFunctionLines {
				t.Errorf("%s: function %s has %d lines, at most %d", s.path, fn.Name.Name, n, maxFunctionLines)
			}
			if n > docFunctionLines {
				long++
				t.Logf("%s: function %s has %d lines, aim for %d", s.path, fn.Name.Name, n, docFunctionLines)
			}
		}
	}
	if long > 0 {
		t.Errorf("%d functions have more than %d lines", long, docFunctionLines)
	}
}

func TestNoInitNoBareGoNoPanicMessages(t *testing.T) {
	for _, s := range tree(t) {
		if s.isTest() || testOnly(s.path) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.FuncDecl:
				if x.Name.Name == "init" && x.Recv == nil {
					t.Errorf("%s: func init", s.path)
				}
			case *ast.GoStmt:
				t.Errorf("%s:%d: bare go statement; use an errgroup that Run waits for", s.path, s.set.Position(x.Pos()).Line)
			}
			return true
		})
	}
}

// testOnly names packages that exist for tests alone.
func testOnly(path string) bool {
	return strings.HasPrefix(path, "test/") || strings.Contains(path, "test/")
}

func TestNoGlobalVariablesButImmutableOnes(t *testing.T) {
	for _, s := range tree(t) {
		if s.isTest() || testOnly(s.path) {
			continue
		}
		for _, decl := range s.file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR || isEmbedded(gen) {
				continue
			}
			for _, spec := range gen.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if ok && len(v.Values) == 0 {
					t.Errorf("%s: variable %s has no value of its own: state belongs into a struct", s.path, v.Names[0].Name)
				}
			}
		}
	}
}

// isEmbedded: a go:embed variable has the file for its value.
func isEmbedded(gen *ast.GenDecl) bool {
	return gen.Doc != nil && slices.ContainsFunc(gen.Doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

func TestNoCatchAllPackages(t *testing.T) {
	banned := []string{"util", "utils", "common", "helper", "helpers", "shared", "misc", "manager"}
	for _, s := range tree(t) {
		if slices.Contains(banned, s.file.Name.Name) {
			t.Errorf("%s: package %s says nothing about what it is", s.path, s.file.Name.Name)
		}
	}
}
