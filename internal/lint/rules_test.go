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
				t.Errorf("%s: function %s has %d lines, at most %d", s.path, fn.Name.Name, n,
					maxFunctionLines)
			}
			if n > docFunctionLines {
				long++
				t.Logf("%s: function %s has %d lines, aim for %d", s.path, fn.Name.Name,
					n, docFunctionLines)
			}
		}
	}
	if long > 0 {
		t.Errorf("%d functions have more than %d lines", long, docFunctionLines)
	}
}

// timers are the files that have a timer run code of theirs: what it runs is over at once, does no
// I/O, and nobody has to wait for it.
var timers = []string{
	"cmd/sluice/drain.go", "cmd/sluice/disk_notice.go", "cmd/sluice/image_steps.go",
	"internal/disk/store/stall.go", "internal/disk/store/waitbudget.go",
}

// panics are the files that end the process or a goroutine: where a count that decides what is
// deleted is wrong, where strings can't be encoded, and where etcd has given up, from which it must
// not return.
var panics = []string{
	"internal/disk/blockmap/segments.go", "internal/runtime/qemu/spawn.go",
	"internal/state/etcdstate/giveup.go",
}

func TestNoInitNoBareGoNoPanic(t *testing.T) {
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
				t.Errorf("%s: bare go statement; use an errgroup that Run waits for", s.at(x))
			case *ast.CallExpr:
				switch {
				case isCall(x, "", "panic") && !slices.Contains(panics, s.path):
					t.Errorf("%s: panic; return an error", s.at(x))
				case isCall(x, "time", "AfterFunc") && !slices.Contains(timers, s.path):
					t.Errorf("%s: time.AfterFunc runs code that nobody waits for", s.at(x))
				}
			}
			return true
		})
	}
}

// isCall says that a call is of a function of a package; of the language or this package where pkg
// is "".
func isCall(call *ast.CallExpr, pkg, name string) bool {
	if pkg == "" {
		id, ok := call.Fun.(*ast.Ident)
		return ok && id.Name == name
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
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
					t.Errorf("%s: variable %s has no value of its own: state belongs into a struct",
						s.path, v.Names[0].Name)
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
