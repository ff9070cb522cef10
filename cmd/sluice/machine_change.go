package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// waitFlags are shared by commands that begin something.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (f *waitFlags) add(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVar(&f.wait, "wait", true, "wait until "+what)
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Minute, "longest time to wait")
}

func newMachineStartCommand(d *deps) *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use:     "start MACHINE",
		Short:   "Start a stopped machine",
		Long:    "Start a stopped machine, on any worker with room. Starting one that runs changes nothing." + exitTable,
		Example: "  sluice machine start web-1",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := c.StartMachine(cmd.Context(), args[0])
			if err == nil && f.wait {
				m, err = d.waitFor(cmd.Context(), f.timeout, c, m, untilHealthy())
			}
			return d.machineLine(m, err)
		}),
	}
	f.add(cmd, "it is healthy")
	return cmd
}

func newMachineStopCommand(d *deps) *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use:   "stop MACHINE",
		Short: "Stop a machine cleanly; it keeps its disk",
		Long: `Stop a machine: its stop signal, SIGKILL after its stop timeout, then its disk is
flushed and closed. It stays stopped until it is started. Stopping one that is
stopped changes nothing.
` + exitTable,
		Example: "  sluice machine stop web-1",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := c.StopMachine(cmd.Context(), args[0])
			if err == nil && f.wait {
				m, err = d.waitFor(cmd.Context(), f.timeout, c, m, untilStopped())
			}
			return d.machineLine(m, err)
		}),
	}
	f.add(cmd, "it is stopped")
	return cmd
}

func waitStopped(ctx context.Context, c *client.Client, id string) (api.Machine, error) {
	m, err := c.WaitMachine(ctx, id, client.UntilStopped, func(m api.Machine) bool {
		return m.State == "stopped" || m.Desired != "stopped"
	})
	if err == nil && m.State != "stopped" {
		return m, &api.Error{Code: string(errs.Conflict),
			Message: "machine " + m.Name + " is wanted " + m.Desired + " again", Cause: m.Reason}
	}
	return m, err
}

func (d *deps) machineLine(m api.Machine, err error) error {
	if err != nil {
		return err
	}
	return d.result(m, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %s\n", m.ID, m.Name, stateOf(m), orDash(m.Worker))
		return err
	})
}

func newMachineDestroyCommand(d *deps) *cobra.Command {
	var f waitFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "destroy MACHINE",
		Short: "Destroy a machine and its disk, for good",
		Long: `Destroy a machine and its disk, for good. The reference must be exact. It asks
first, unless --yes is given; without a terminal to ask on, --yes is needed.
` + exitTable,
		Example: "  sluice machine destroy shop/web-1\n  sluice machine destroy 01f3a4b5c6d7e8 --yes",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := c.Machine(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !yes {
				if err := d.confirm(fmt.Sprintf(
					"Destroy machine %s (%s of app %s) and its disk %s?", m.Name, m.ID, m.App,
					m.DiskURL), m.Name); err != nil {
					return err
				}
			}
			// By its id from here on: the name may get another owner while we ask.
			if err := c.DestroyMachine(cmd.Context(), m.ID); err != nil {
				return err
			}
			if f.wait {
				if err := d.waitGone(cmd.Context(), c, m, f.timeout); err != nil {
					return err
				}
			}
			return d.result(map[string]string{"id": m.ID, "name": m.Name, "state": "destroyed"},
				func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s  %s  destroyed\n", m.ID, m.Name)
					return err
				})
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	f.add(cmd, "nothing is left of it")
	return cmd
}

// confirm asks for the name of what is to be destroyed.
func (d *deps) confirm(question, name string) error {
	if terminal(d.stdin) == nil {
		return usageError("there is no terminal to ask on; give --yes")
	}
	fmt.Fprintf(d.stderr, "%s\nType %q to go on: ", question, name)
	line, err := bufio.NewReader(d.stdin).ReadString('\n')
	if strings.TrimSpace(line) != name {
		return errs.Wrap(errs.Invalid, err, "not confirmed; nothing was changed")
	}
	return nil
}

// waitGone waits until the fleet doesn't know the machine any more.
func (d *deps) waitGone(ctx context.Context, c *client.Client, m api.Machine,
	bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := c.Machine(ctx, m.ID)
		switch {
		case client.IsCode(err, "not_found"):
			return nil
		case err != nil && !client.IsCode(err, "unavailable"):
			if ctx.Err() == nil {
				return err
			}
		case err == nil && now.Desired != "destroyed":
			return errs.New(errs.Conflict, "machine %s is wanted %s again", m.ID, now.Desired)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errs.New(errs.Unavailable,
				"machine %s is still being destroyed; it goes on by itself", m.ID).
				WithRemedy("see: sluice machine status %s", m.ID)
		}
	}
}
