package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newMachineMigrateCommand(d *deps) *cobra.Command {
	var f waitFlags
	var to string
	cmd := &cobra.Command{
		Use:   "migrate MACHINE",
		Short: "Move a machine to another worker; nothing of its disk is copied",
		Long: `Move a machine to another worker, the best one or that of --to. It is stopped, its
disk is closed, and it is started there with the same id, name, config and disk; its
instance id and private address change. Moving it to where it is already changes
nothing.
` + exitTable + "\n  8  the move was undone: the machine is where it was",
		Example: "  sluice machine migrate web-1\n  sluice machine migrate web-1 --to w2",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if m, err := c.Machine(cmd.Context(), args[0]); err != nil {
				return err
			} else if to != "" && m.Worker == to && m.Operation == "" && m.Desired == "started" {
				return d.stays(m)
			}
			move, err := c.MigrateMachine(cmd.Context(), args[0], to)
			if err != nil {
				return err
			}
			if f.wait {
				if move, err = d.followMove(cmd.Context(), c, move, f.timeout); err != nil {
					return err
				}
			}
			if err := d.result(move, func(w io.Writer) error {
				return printMoves(w,
					[]api.Move{move})
			}); err != nil {
				return err
			}
			if move.Step == "undone" {
				return &codedError{code: exitBlocked,
					err: &api.Error{Code: "failed", Message: "the move was undone; machine " +
						move.MachineName + " is on " + move.From, Cause: move.Error}}
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "worker to move it to (default: the best)")
	f.add(cmd, "the move has ended")
	return cmd
}

// stays reports that a machine is on the wanted worker already. For programs it prints a move that
// has ended, without an id because none was made.
func (d *deps) stays(m api.Machine) error {
	move := api.Move{Machine: m.ID, MachineName: m.Name, Network: m.Network, Reason: "migrate",
		From: m.Worker, To: m.Worker, Step: "done", Steps: []api.Step{}}
	return d.result(move, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  is on %s already; nothing was moved\n", m.ID,
			m.Name, m.Worker)
		return err
	})
}

func (d *deps) followMove(ctx context.Context, c *client.Client, move api.Move,
	bound time.Duration) (api.Move, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	got, err := c.WaitMove(ctx, move.ID)
	if err != nil && ctx.Err() != nil {
		return got, errs.New(errs.Unavailable,
			"move %s of machine %s has not ended; it goes on by itself", move.ID, move.Machine).
			WithRemedy("see: sluice machine status %s", move.Machine)
	}
	return got, err
}
