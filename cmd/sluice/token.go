package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
)

func newTokenCommand(d *deps) *cobra.Command {
	return newNoun("token", "Make, list and revoke tokens of people and programs",
		newTokenCreateCommand(d),
		newTokenListCommand(d),
		newTokenShowCommand(d),
		newTokenRevokeCommand(d),
	)
}

const tokenCreateHelp = `Make a token, and print it: it can't be shown again, since the server keeps a hash
of it. With --network or --app it counts there only; without either in the whole
fleet. Each verb has those before it:

  read     see the state of machines, with their config and its environment
  use      exec, logs, ports and services of a machine
  operate  create, start, stop, move and destroy machines, and name checkpoints
  admin    tokens, too; in the whole fleet also workers, drains, images and audit

A token can grant only what its maker is admin of, and lasts no longer than its
maker's. The tokens in the server's own file may do everything. For a network or app
of which there is nothing yet say --new.
`

func newTokenCreateCommand(d *deps) *cobra.Command {
	var grant api.Grant
	var grants []string
	var ttl time.Duration
	var unknown newThings
	cmd := &cobra.Command{
		Use:   "create NAME --verb VERB [--network NETWORK] [--app APP] [--ttl DURATION]",
		Short: "Make a token, and print it once",
		Long:  tokenCreateHelp + exitTable,
		Example: `  sluice token create ci --network prod --app shop --verb operate --ttl 720h
  sluice token create dashboard --verb read
  sluice token create both --grant use@prod --grant read@test/shop`,
		Args: exactly("a name"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			req := api.CreateToken{Name: args[0], TTL: ttl.Seconds()}
			if grant.Verb != "" {
				req.Grants = append(req.Grants, grant)
			} else if grant.Network != "" || grant.App != "" {
				return usageError("--network and --app need --verb")
			}
			for _, g := range grants {
				parsed, err := parseGrant(g)
				if err != nil {
					return err
				}
				req.Grants = append(req.Grants, parsed)
			}
			if len(req.Grants) == 0 {
				return usageError("%s needs --verb or --grant", cmd.CommandPath())
			}
			if ttl < 0 {
				return usageError("--ttl %s is negative", ttl)
			}
			if err := unknown.mustKnow(cmd.Context(), c, placesOf(req.Grants)...); err != nil {
				return err
			}
			t, err := c.CreateToken(cmd.Context(), req)
			if err != nil {
				return err
			}
			fmt.Fprintf(d.stderr, "token %s (%s), %s; it can't be shown again\n", t.Name, t.ID,
				grantsText(t.Grants))
			return d.result(t, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, t.Token)
				return err
			})
		}),
	}
	unknown.add(cmd)
	cmd.Flags().StringVar(&grant.Verb, "verb", "", "read, use, operate or admin")
	cmd.Flags().StringVar(&grant.Network, "network", "", "network in which it counts")
	cmd.Flags().StringVar(&grant.App, "app", "", "app for which it counts")
	cmd.Flags().StringArrayVar(&grants, "grant", nil,
		"VERB[@NETWORK[/APP]], or VERB@/APP; repeat it for more than one")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "time until it expires (default: never)")
	return cmd
}

// placesOf returns the networks and apps that grants are for.
func placesOf(grants []api.Grant) [][2]string {
	var places [][2]string
	for _, g := range grants {
		places = append(places, [2]string{g.Network, g.App})
	}
	return places
}

// parseGrant reads VERB[@NETWORK[/APP]]. Names are the server's to check.
func parseGrant(s string) (api.Grant, error) {
	verb, network, app, ok := authz.SplitGrant(s)
	if !ok {
		return api.Grant{}, usageError("--grant %q is not like use@prod/shop", s)
	}
	return api.Grant{Verb: verb, Network: network, App: app}, nil
}

// grantsText is what a token lets its holder do, as --grant takes it.
func grantsText(grants []api.Grant) string {
	var all []string
	for _, g := range grants {
		all = append(all, fleet.Grant{Network: fleet.NetworkName(g.Network),
			App: fleet.AppName(g.App), Verb: g.Verb}.String())
	}
	return strings.Join(all, " ")
}

func newTokenListCommand(d *deps) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tokens: those within your own scopes",
		Long: `List tokens: those that grant nothing beyond your own scopes. Ended ones are kept for
30 days, and shown with --all.
` + exitTable,
		Example: "  sluice token list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			tokens, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			shown := []api.Token{}
			for _, t := range tokens {
				if all || t.State == "live" {
					shown = append(shown, t)
				}
			}
			return d.result(shown, func(w io.Writer) error {
				var rows [][]string
				for _, t := range shown {
					rows = append(rows, []string{t.ID, t.Name, t.State, grantsText(t.Grants),
						t.CreatedBy, timestamp(t.ExpiresAt), timestamp(t.LastUsedAt)})
				}
				return printTable(w, []string{"ID", "NAME", "STATE", "GRANTS", "CREATED BY",
					"EXPIRES", "LAST USED"}, rows)
			})
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "expired and revoked ones, too")
	return cmd
}

func newTokenShowCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "show TOKEN",
		Short:   "Show one token, by its id or exact name",
		Long:    "Show one token, by its id or exact name; never the token itself." + exitTable,
		Example: "  sluice token show ci",
		Args:    exactly("a token"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			t, err := c.Token(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.result(t, func(w io.Writer) error { return printToken(w, t) })
		}),
	}
}

func newTokenRevokeCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke TOKEN",
		Short: "End a token for good, by its id or exact name",
		Long: `End a token for good, by its id or exact name. Commands, logs and watches that run on
it end within seconds, and say why. What it has made stays, tokens included: see
CREATED BY of sluice token list.
` + exitTable,
		Example: "  sluice token revoke ci",
		Args:    exactly("a token"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			t, err := c.RevokeToken(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.result(t, func(w io.Writer) error { return printToken(w, t) })
		}),
	}
}

func printToken(w io.Writer, t api.Token) error {
	if _, err := fmt.Fprintf(w, "%s  %s  %s\n", t.ID, t.Name, t.State); err != nil {
		return err
	}
	return printFields(w, [][2]string{{"grants", grantsText(t.Grants)},
		{"created", timestamp(t.CreatedAt)}, {"created by", t.CreatedBy},
		{"expires", timestamp(t.ExpiresAt)}, {"last used", timestamp(t.LastUsedAt)},
		{"revoked", timestamp(t.RevokedAt)}, {"revoked by", t.RevokedBy}})
}
