package main

import (
	"context"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// addKeyFlags lets the server be told the fleet's keys.
func (f *serverFlags) addKeyFlags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.keys.Files, "fleet-key-file", nil,
		"file with the fleet's key, under which keys of disks and secrets are sealed: 32 bytes, as "+
			"they are, in hex or in base64; repeat it for older keys, the newest first")
	flags.StringArrayVar(&f.keys.Commands, "fleet-key-command", nil,
		"command that prints the fleet's key; it gets a minute; repeat it for older keys")
	flags.BoolVar(&f.withoutKeys, "start-without-keys", false,
		"start although a fleet key is missing: machines whose keys it has sealed can't start")
}

// openSealed has the control plane see whether the fleet's keys open all that is sealed.
func (f *serverFlags) openSealed(ctx context.Context, c *control.Control, log *slog.Logger) error {
	err := c.OpenSealed(ctx)
	if errs.Is(err, errs.Denied) && f.withoutKeys {
		log.ErrorContext(ctx, "started without a fleet key that is needed", "error", err)
		return nil
	}
	return err
}
