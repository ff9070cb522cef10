package main

import (
	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/seal"
)

// addFleetKeyFlags lets the server be told the fleet's keys.
func addFleetKeyFlags(flags *pflag.FlagSet, s *seal.Sources) {
	flags.StringArrayVar(&s.Files, "fleet-key-file", nil,
		"file with the fleet's key, under which keys of disks and secrets are sealed: 32 bytes, as "+
			"they are, in hex or in base64; repeat it for older keys, the newest first")
	flags.StringArrayVar(&s.Commands, "fleet-key-command", nil,
		"command that prints the fleet's key; it gets a minute; repeat it for older keys")
}
