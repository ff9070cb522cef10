//go:build linux

// Command attack makes all attempts of a foothold of test/attack/attempts, which its argument
// names. It prints a line for each: its name, a tab, and the error's number; 0: it succeeded.
package main

import (
	"fmt"
	"os"

	"github.com/sluice-platform/sluice/test/attack/attempts"
)

func main() {
	if len(os.Args) != 2 || len(attempts.Of(os.Args[1])) == 0 {
		fmt.Fprintln(os.Stderr, "attack: name a foothold")
		os.Exit(2)
	}
	if err := attempts.Make(os.Stdout, attempts.Of(os.Args[1])); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}
