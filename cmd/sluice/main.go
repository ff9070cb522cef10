// Command sluice is all of Sluice but what runs inside a VM: the command line for people, the
// server, the worker daemon and the inspectors of disks and images.
//
// Invariants: stdout is the result and stderr the rest; --json prints the wire types of package
// api, to which fields are only ever added; errors are printed as message, cause and remedy, and
// their kind decides the exit code (see exitcode.go); what destroys takes exact names only.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/runtime/qemu"
	"github.com/sluice-platform/sluice/internal/runtime/sandbox"
)

func main() {
	// A process that is to become a VM's init or QEMU, or to have a tunnel, never gets further.
	sandbox.Child()
	qemu.Child()
	tunnel.Child()
	os.Exit(mainCode())
}

func mainCode() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	return run(ctx, &deps{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv},
		os.Args[1:])
}

// run is the whole command with everything it touches handed in; it returns the exit code.
func run(ctx context.Context, d *deps, args []string) int {
	root := newRootCommand(d)
	d.args = args
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	d.json = d.json || err != nil && asksForJSON(args) // parsing may have ended before it
	return finish(d, cmd, err)
}

// asksForJSON says whether --json is among the arguments that are ours in any case.
func asksForJSON(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}
