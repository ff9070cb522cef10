package lint

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// TestNobodySyncsTheWholeHost: sync(2), and the command of that name, wait for every file system of
// the kernel, other machines' stalled disks among them. syncfs and fsync say what is meant. What
// runs in a machine is not looked at, text for its shell and test/guest: there it means the
// machine. See internal/platform/ownsync, whose tests may call it, too.
func TestNobodySyncsTheWholeHost(t *testing.T) {
	for _, s := range tree(t) {
		if within(s.dir(), "test/guest") || s.dir() == "internal/platform/ownsync" && s.isTest() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if what := syncOfAll(n); what != "" {
				t.Errorf("%s:%d: %s waits for all disks of the host; use unix.Syncfs", s.path,
					s.set.Position(n.Pos()).Line, what)
			}
			return true
		})
	}
}

// syncOfAll returns what of a node would sync everything, or "".
func syncOfAll(n ast.Node) string {
	if call, ok := n.(*ast.CallExpr); ok {
		fn, ok := call.Fun.(*ast.SelectorExpr)
		if ok && strings.HasPrefix(fn.Sel.Name, "Command") &&
			slices.ContainsFunc(call.Args, isSyncCommand) {
			return "the command sync"
		}
		return ""
	}
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := sel.X.(*ast.Ident)
	if ok && (pkg.Name == "unix" || pkg.Name == "syscall") &&
		(sel.Sel.Name == "Sync" || sel.Sel.Name == "SYS_SYNC") {
		return pkg.Name + "." + sel.Sel.Name
	}
	return ""
}

func isSyncCommand(arg ast.Expr) bool {
	lit, ok := arg.(*ast.BasicLit)
	return ok && slices.Contains([]string{`"sync"`, `"/bin/sync"`, `"/usr/bin/sync"`}, lit.Value)
}
