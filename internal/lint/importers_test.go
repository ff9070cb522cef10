package lint

import (
	"go/ast"
	"strings"
	"testing"
)

// TestEveryPackageIsImported finds packages that nothing but their own tests uses. Those that exist
// for tests need a test; the public ones, api and client, need nobody.
func TestEveryPackageIsImported(t *testing.T) {
	product, tests, declares := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range tree(t) {
		tests[s.dir()] = tests[s.dir()] || s.isTest()
		if !s.isTest() && s.file.Name.Name != "main" && len(s.file.Decls) > 0 {
			declares[s.dir()] = true
		}
		for _, imp := range s.file.Imports {
			ours, ok := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			if !ok || ours == s.dir() {
				continue
			}
			tests[ours] = true
			product[ours] = product[ours] || !s.isTest()
		}
	}
	for dir := range declares {
		used := product[dir] || testOnly(dir+"/") && tests[dir]
		if !used && within(dir, "internal") && dir != model {
			t.Errorf("%s is imported by nobody: delete it", dir)
		}
	}
}

// model is a model of the disk's protocol, which its own tests explore.
const model = "internal/disk/model"

// maxParameters is how many parameters a function has at most, beside its context; more of them
// belong into a struct.
const maxParameters = 5

// signHTTP is a method that the AWS SDK's interface asks for.
const signHTTP = "SignHTTP"

func TestFunctionsHaveFewParameters(t *testing.T) {
	for _, s := range tree(t) {
		if s.isTest() {
			continue
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Name.Name == signHTTP {
				continue
			}
			if n := parameters(fn); n > maxParameters {
				t.Errorf("%s: %s has %d parameters, at most %d", s.path, fn.Name.Name, n,
					maxParameters)
			}
		}
	}
}

// parameters counts what a function is given beside its context.
func parameters(fn *ast.FuncDecl) int {
	n := fn.Type.Params.NumFields()
	for _, p := range fn.Type.Params.List {
		if sel, ok := p.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
			n--
		}
	}
	return n
}
