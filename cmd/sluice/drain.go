package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

func newDrainCommand(d *deps) *cobra.Command {
	cmd := newNoun("drain", "Watch and cancel drains (begin one with: sluice worker drain)",
		newDrainListCommand(d),
		newDrainStatusCommand(d),
		newDrainWatchCommand(d),
		newDrainCancelCommand(d),
	)
	cmd.Annotations = map[string]string{beginWith: "sluice worker drain"}
	return cmd
}

func newDrainListCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List drains, oldest first",
		Long:    "List drains, oldest first." + exitTable,
		Example: "  sluice drain list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			drains, err := c.Drains(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(drains, func(w io.Writer) error {
				rows := make([][]string, 0, len(drains))
				for _, x := range drains {
					rows = append(rows, []string{x.ID, x.State, strings.Join(x.Workers, ","),
						fmt.Sprintf("%d/%d", x.Moved, x.Total),
						fmt.Sprint(len(x.Blockers)), timestamp(x.StartedAt),
						timestamp(x.FinishedAt)})
				}
				return printTable(w, []string{"DRAIN", "STATE", "WORKERS", "MOVED", "BLOCKERS",
					"STARTED", "FINISHED"}, rows)
			})
		}),
	}
}

func newDrainStatusCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "status DRAIN",
		Short:   "Show one drain with its moves",
		Long:    "Show one drain with its moves." + exitTable,
		Example: "  sluice drain status 01J08P60K8NK33K9P5MQ5M4QN8",
		Args:    exactly("a drain"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			drain, err := c.Drain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.result(drain, func(w io.Writer) error { return printDrain(w, drain) })
		}),
	}
}

func newDrainCancelCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel DRAIN",
		Short: "Stop a drain; machines that were moved stay where they are now",
		Long: `Stop a drain. A move that has stopped its machine already is finished or undone, so
that the machine is wholly on one side; no other is begun. Workers that the drain
cordoned are uncordoned.
` + exitTable,
		Example: "  sluice drain cancel 01J08P60K8NK33K9P5MQ5M4QN8",
		Args:    exactly("a drain"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			drain, err := c.CancelDrain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.result(drain, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", drain.ID, drain.State)
				return err
			})
		}),
	}
}

func newDrainWatchCommand(d *deps) *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "watch DRAIN",
		Short: "Watch a drain until it has ended",
		Long: `Watch a drain until it has ended. With --json each change is one line: the whole
drain.
` + exitTable + drainExit,
		Example: "  sluice drain watch 01J08P60K8NK33K9P5MQ5M4QN8",
		Args:    exactly("a drain"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if d.json {
				return d.streamDrain(cmd.Context(), c, args[0], f)
			}
			drain, err := c.Drain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.followDrain(cmd.Context(), c, drain, f)
		}),
	}
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "longest time to stay (default: no bound)")
	f.wait = true
	return cmd
}

// blockedFor is how long a drain must have been blocked until a command that wasn't told to wait
// ends.
const blockedFor = 5 * time.Second

// watchDrain follows a drain and returns its newest state. It ends with the drain, with ctx, after
// the flags' time, or, without --wait, when the drain has been blocked for a while.
func watchDrain(ctx context.Context, c *client.Client, drain api.Drain, f drainFlags,
	show func(api.Drain) error) (api.Drain, error) {
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	blocked := time.AfterFunc(time.Hour, func() { giveUp(errStaysBlocked) })
	blocked.Stop()
	defer blocked.Stop()
	wasBlocked := false
	var shown error
	err := c.WatchDrain(ctx, drain.ID, func(now api.Drain) bool {
		drain = now
		isBlocked := now.State == "blocked"
		switch {
		case f.wait || isBlocked == wasBlocked:
		case isBlocked:
			blocked.Reset(blockedFor)
		default:
			blocked.Stop()
		}
		wasBlocked = isBlocked
		shown = show(now)
		return shown == nil
	})
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errStaysBlocked) {
		err = cause
	}
	return drain, errors.Join(err, shown)
}

// errStaysBlocked ends a wait that was not told to outlast a blocked drain.
var errStaysBlocked = errors.New("the drain stays blocked")

// followDrain shows a drain's progress on stderr and its result on stdout.
func (d *deps) followDrain(ctx context.Context, c *client.Client, drain api.Drain,
	f drainFlags) error {
	progress := d.newDrainProgress(!f.wait)
	drain, err := watchDrain(ctx, c, drain, f, progress.show)
	progress.end()
	if printErr := d.result(drain,
		func(w io.Writer) error { return printDrain(w, drain) }); printErr != nil {
		return printErr
	}
	return d.drainOutcome(drain, err)
}

// streamDrain prints every state as a line of JSON.
func (d *deps) streamDrain(ctx context.Context, c *client.Client, id string, f drainFlags) error {
	drain, err := watchDrain(ctx, c, api.Drain{ID: id}, f,
		func(now api.Drain) error { return d.printJSONLine(now) })
	return d.drainOutcome(drain, err)
}

// drainOutcome is nil only for a drain that has drained.
func (d *deps) drainOutcome(drain api.Drain, err error) error {
	goesOn := fmt.Sprintf(
		"the drain goes on by itself; watch it with: sluice drain watch %s, stop it with: sluice drain cancel %s", drain.ID, drain.ID)
	switch {
	case err == nil && drain.State == "drained":
		return nil
	case err == nil:
		return &codedError{code: exitBlocked, err: &api.Error{Code: "failed",
			Message: "the drain is " + drain.State + "; not every machine was moved"}}
	case errors.Is(err, errStaysBlocked):
		return &codedError{code: exitBlocked,
			err: &api.Error{Code: "failed",
				Message: "the drain is blocked; the machines named above keep running where they are", Remedy: goesOn}}
	case errors.Is(err, context.DeadlineExceeded):
		return &codedError{code: exitBlocked, err: &api.Error{Code: "failed",
			Message: "the drain has not ended in time", Remedy: goesOn}}
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(d.stderr, goesOn)
		return err
	default:
		return err
	}
}
