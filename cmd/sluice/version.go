package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: "  sluice version",
		Args:    exactly(),
		RunE:    func(*cobra.Command, []string) error { return d.printVersion() },
	}
}

func (d *deps) printVersion() error {
	v := map[string]string{"version": buildVersion(), "go": runtime.Version()}
	return d.result(v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "sluice %s (%s)\n", v["version"], v["go"])
		return err
	})
}

// version is set by the linker: -X main.version=…
var version = ""

// buildVersion is the version of this binary.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
