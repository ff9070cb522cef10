package lint

import (
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// minimal are the programs that tests and the product call and a Debian has that has nothing: those
// of its essential packages, apt, and Go, which the README asks for.
var minimal = []string{"cat", "cmp", "cp", "dd", "grep", "perl", "sh", "sleep", "stdbuf", "sync",
	"apt-get", "go"}

// optional are programs without which the product does less, and says which package to install.
var optional = []string{"btrfs", "xdg-open"}

// TestProgramsAreInstalledBySetup compares what tests and the product call with what
// scripts/setup.sh installs. A program that only this machine happens to have fails elsewhere. It
// sees names that are written where they are called, or given to a function of the same package
// that calls them; make fresh sees all.
func TestProgramsAreInstalledBySetup(t *testing.T) {
	base, bench := setupTables(t)
	called := calledPrograms(tree(t))
	for _, name := range slices.Sorted(maps.Keys(called)) {
		for _, at := range called[name] {
			program := filepath.Base(name)
			ok := slices.Contains(minimal, program) || base[program] || bench[program] &&
				isBench(at) ||
				slices.Contains(optional, program) && !at.isTest()
			ours := strings.HasSuffix(name, ".sh") || strings.HasPrefix(name, "/proc/") ||
				name == "/init"
			if !ok && !ours {
				t.Errorf(
					"%s: calls %s, which scripts/setup.sh doesn't install; add it and its package to the table there", at.path, name)
			}
		}
	}
	for _, name := range []string{"mkfs.ext4", "xfs_growfs", "mkfs.xfs", "debootstrap", "qemu-io",
		"e2fsck", "s3backer"} {
		if len(called[name]) == 0 {
			t.Errorf(
				"nobody calls %s: this test has become blind, or setup installs what nobody needs",
				name)
		}
	}
}

func isBench(s source) bool { return within(s.dir(), "test/bench") }

// setupTables returns the names of scripts/setup.sh: those that each machine gets, and those for
// benchmarks.
func setupTables(t *testing.T) (base, bench map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "scripts/setup.sh"))
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]map[string]bool{"base": {}, "bench": {}}
	table := regexp.MustCompile(`(?s)\b(base|bench)\+?=\((.*?)\n?\)`)
	entry := regexp.MustCompile(`\[([^]]+)\]=`)
	for _, m := range table.FindAllStringSubmatch(string(text), -1) {
		for _, e := range entry.FindAllStringSubmatch(m[2], -1) {
			tables[m[1]][e[1]] = true
		}
	}
	if len(tables["base"]) < 10 || len(tables["bench"]) < 2 {
		t.Fatalf("the tables in scripts/setup.sh aren't understood: %v", tables)
	}
	return tables["base"], tables["bench"]
}

// calls tells which argument of a function names a program, by directory and function.
type calls map[string]map[string]int

// calledPrograms returns the names of the programs that are called, and where.
func calledPrograms(sources []source) map[string][]source {
	known := calls{}
	for {
		names := map[string][]source{}
		found := false
		for _, s := range sources {
			for _, decl := range s.file.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
					found = known.learn(s, fn, names) || found
				}
			}
		}
		if !found {
			return names
		}
	}
}

// learn notes which programs a function calls, and whether one of its parameters is a program's
// name: then who calls it calls that. It reports whether the latter is news.
func (known calls) learn(s source, fn *ast.FuncDecl, names map[string][]source) bool {
	params := paramNames(fn)
	news := false
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		at, ok := known.program(s, call)
		if !ok || at >= len(call.Args) {
			return true
		}
		name, param := programOf(call.Args[at])
		if name != "" {
			names[name] = append(names[name], s)
		}
		i := slices.Index(params, param)
		of := known[s.dir()]
		if _, old := of[fn.Name.Name]; param == "" || i < 0 || old {
			return true
		}
		if of == nil {
			of = map[string]int{}
			known[s.dir()] = of
		}
		of[fn.Name.Name] = i
		news = true
		return true
	})
	return news
}

// program returns which argument of a call is a program.
func (known calls) program(s source, call *ast.CallExpr) (int, bool) {
	name := ""
	switch f := call.Fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
		if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "exec" {
			i, ok := map[string]int{"Command": 0, "LookPath": 0, "CommandContext": 1}[name]
			return i, ok
		}
	}
	i, ok := known[s.dir()][name]
	return i, ok
}

// programOf returns the name that an argument is, or begins with, or the variable that has it.
func programOf(arg ast.Expr) (name, variable string) {
	switch x := arg.(type) {
	case *ast.BasicLit:
		if x.Kind == token.STRING {
			name, _ = strconv.Unquote(x.Value) // the parser has taken it for a string
		}
	case *ast.CompositeLit:
		if len(x.Elts) > 0 {
			name, _ = programOf(x.Elts[0])
		}
	case *ast.IndexExpr: // the first of a list
		_, variable = programOf(x.X)
	case *ast.Ident:
		variable = x.Name
	}
	return name, variable
}

func paramNames(fn *ast.FuncDecl) []string {
	var names []string
	for _, field := range fn.Type.Params.List {
		for _, name := range field.Names {
			names = append(names, name.Name)
		}
	}
	return names
}
