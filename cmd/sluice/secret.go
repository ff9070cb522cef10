package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// secretScope is whose secrets a command is about.
type secretScope struct{ network, app string }

func (f *secretScope) pair() [2]string { return [2]string{f.network, f.app} }

// add lets a command be told whose.
func (f *secretScope) add(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&f.network, "network", "", "network of the app's machines (required)")
	cmd.Flags().StringVar(&f.app, "app", "", "app whose machines get them (required)")
	cmd.PreRunE = requires("network", "app")
	return cmd
}

func newSecretCommand(d *deps) *cobra.Command {
	return newNoun("secret", "Set and list secrets of apps, which their machines get as environment",
		newSecretSetCommand(d),
		newSecretListCommand(d),
		newSecretUnsetCommand(d),
	)
}

func newSecretSetCommand(d *deps) *cobra.Command {
	var of secretScope
	var unknown newThings
	cmd := &cobra.Command{
		Use:   "set NAME [@FILE] --network NETWORK --app APP",
		Short: "Set a secret of an app, from stdin or a file",
		Long: `Set a secret of an app in a network. The value is read from stdin, or from the file
after the @, and is never an argument, where others on this host would see it. One
line feed at its end is left out. It is kept sealed under the fleet's key, and shown
to nobody.

The app's machines have it in the environment of services and commands from their
next start on: sluice machine stop, sluice machine start. It goes over what --env
says, and below what a service or a command sets for itself. For an app without a
machine, which gets them when its first one starts, say --new.
` + exitTable,
		Example: `  sluice secret set DATABASE_URL @database.url --network prod --app shop
  pass show shop/token | sluice secret set TOKEN --network prod --app shop`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && strings.Contains(args[0], "=") { // a value, in logs before long
				return usageError("%s takes a name, and the value from stdin or from @FILE",
					cmd.CommandPath())
			}
			if len(args) == 2 && strings.HasPrefix(args[1], "@") {
				return nil
			}
			if len(args) > 1 {
				return usageError("%s takes the value from stdin or from @FILE, not as an "+
					"argument: others would see it, and your shell's history has it now",
					cmd.CommandPath())
			}
			return exactly("a name")(cmd, args)
		},
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			value, err := d.readSecret(args[1:])
			if err != nil {
				return err
			}
			if err := unknown.mustKnow(cmd.Context(), c, of.pair()); err != nil {
				return err
			}
			s, err := c.SetSecret(cmd.Context(), of.network, of.app, args[0], value)
			if err != nil {
				return err
			}
			return d.result(s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w,
					"%s  %s  machines of app %s get it when they are started\n",
					s.Name, s.Digest, s.App)
				return err
			})
		}),
	}
	unknown.add(cmd)
	return of.add(cmd)
}

// readSecret reads a value from @FILE, or from stdin.
func (d *deps) readSecret(args []string) (string, error) {
	in, from := d.stdin, "stdin"
	if len(args) > 0 {
		from = strings.TrimPrefix(args[0], "@")
		f, err := os.Open(from)
		if err != nil {
			return "", errs.Wrap(errs.NotFound, err, "open the file with the secret")
		}
		defer f.Close()
		in = f
	}
	// one more than fits, so that the server says that it is too long
	value, err := io.ReadAll(io.LimitReader(in, fleet.MaxSecretBytes+2))
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "read the secret from %s", from)
	}
	return strings.TrimSuffix(string(value), "\n"), nil
}

func newSecretListCommand(d *deps) *cobra.Command {
	var of secretScope
	cmd := &cobra.Command{
		Use:   "list --network NETWORK --app APP",
		Short: "List an app's secrets, without their values",
		Long: `List an app's secrets, without their values. Two with the same digest at different
times had the same value; digests change when the fleet's key does.
` + exitTable,
		Example: "  sluice secret list --network prod --app shop",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			secrets, err := c.Secrets(cmd.Context(), of.network, of.app)
			if err == nil && len(secrets) == 0 { // or it is mistyped
				err = (&newThings{}).mustKnow(cmd.Context(), c, of.pair())
			}
			if err != nil {
				return err
			}
			return d.result(secrets, func(w io.Writer) error {
				rows := make([][]string, 0, len(secrets))
				for _, s := range secrets {
					rows = append(rows, []string{s.Name, s.Digest, timestamp(s.SetAt)})
				}
				return printTable(w, []string{"SECRET", "DIGEST", "SET"}, rows)
			})
		}),
	}
	return of.add(cmd)
}

func newSecretUnsetCommand(d *deps) *cobra.Command {
	var of secretScope
	cmd := &cobra.Command{
		Use:   "unset NAME --network NETWORK --app APP",
		Short: "Remove a secret of an app",
		Long: `Remove a secret of an app. Machines that run keep it until they are stopped; what has
been written to their disks stays there.
` + exitTable,
		Example: "  sluice secret unset TOKEN --network prod --app shop",
		Args:    exactly("a name"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return c.UnsetSecret(cmd.Context(), of.network, of.app, args[0])
		}),
	}
	return of.add(cmd)
}
