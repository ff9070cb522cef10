package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

func newWorkerTokenCommand(d *deps) *cobra.Command {
	cmd := newNoun("token", "Join tokens: each lets one worker into the fleet, once",
		newWorkerTokenCreateCommand(d),
		newWorkerTokenListCommand(d),
		newWorkerTokenRevokeCommand(d),
	)
	cmd.Long = `Join tokens. A worker needs one to get its first certificate, and another after it
was revoked. It also tells the worker which server is the right one.`
	return cmd
}

func newWorkerTokenCreateCommand(d *deps) *cobra.Command {
	var name string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create --name WORKER",
		Short: "Make a token by which a worker joins the fleet",
		Long: `Make a token by which a worker joins the fleet, and print it. It is for a worker of
that name only, can be used once, and can't be shown again. Give it to the worker in
a file, with --join-token-file.
` + exitTable,
		Example: "  sluice worker token create --name w9 > w9.join\n  sluice worker token create --name w9 --ttl 10m",
		Args:    exactly(),
		PreRunE: requires("name"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			if ttl < time.Second {
				return usageError("--ttl %s is too short", ttl)
			}
			token, err := c.CreateJoinToken(cmd.Context(), name, ttl)
			if err != nil {
				return err
			}
			return d.result(token, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, token.Token)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the worker that it is for")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it can be used, up to a week")
	return cmd
}

func newWorkerTokenListCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List join tokens",
		Long:    "List join tokens: those that can be used, and those of the last day." + exitTable,
		Example: "  sluice worker token list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			tokens, err := c.JoinTokens(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(tokens, func(w io.Writer) error {
				rows := make([][]string, 0, len(tokens))
				for _, t := range tokens {
					rows = append(rows, []string{t.ID, t.Worker, joinTokenState(t, time.Now()),
						timestamp(t.CreatedAt), timestamp(t.ExpiresAt), timestamp(t.UsedAt)})
				}
				return printTable(w, []string{"TOKEN", "WORKER", "STATE", "CREATED", "EXPIRES",
					"USED"}, rows)
			})
		}),
	}
}

func joinTokenState(t api.JoinToken, now time.Time) string {
	switch {
	case !t.UsedAt.IsZero():
		return "used"
	case now.After(t.ExpiresAt):
		return "expired"
	default:
		return "open"
	}
}

func newWorkerTokenRevokeCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke TOKEN",
		Short: "Make a join token worthless",
		Long: `Make a join token worthless, by its id. A worker that has joined by it stays: see
sluice worker revoke.
` + exitTable,
		Example: "  sluice worker token revoke u3vk2mxq",
		Args:    exactly("a token's id"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return c.DeleteJoinToken(cmd.Context(), args[0])
		}),
	}
}

func newWorkerRevokeCommand(d *deps) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke WORKER",
		Short: "Shut a worker out of the fleet, at once",
		Long: `Shut a worker out of the fleet: the server refuses its certificates and join tokens
from now on. The machines on it are started elsewhere, as those of a worker that is
down; what still runs on it can't write to their disks any more. It has keys of the
object store, which are to be changed as well if it fell into wrong hands.

A new join token lets it in again, with a new certificate.
` + exitTable,
		Example: "  sluice worker revoke w9 --reason 'disk was stolen'",
		Args:    exactly("a worker"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			who, err := c.RevokeWorker(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return d.result(who, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  revoked\n", who.ID)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people")
	return cmd
}
