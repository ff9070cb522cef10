//go:build linux

// Command attack makes, from user code in a machine, all attempts of test/attack/attempts. It
// prints a line for each: its name, a tab, and the number of the error; 0: it succeeded.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/sluice-platform/sluice/test/attack/attempts"
)

func main() {
	all := attempts.FromUserCode()
	if runtime.GOARCH == "amd64" {
		all = slices.Concat(all, attempts.Old())
	}
	if err := attempts.Make(os.Stdout, all); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}
