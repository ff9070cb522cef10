package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/fleet"
)

func newWorkerCommand(d *deps) *cobra.Command {
	cmd := newNoun("worker", "Look after workers: the hosts that run machines",
		newWorkerListCommand(d),
		newWorkerShowCommand(d),
		newWorkerCordonCommand(d),
		newWorkerUncordonCommand(d),
		newWorkerDrainCommand(d),
		newWorkerTokenCommand(d),
		newWorkerRevokeCommand(d),
	)
	cmd.Long = `Look after workers. A worker is ready, cordoned (takes no new machines), draining,
drained (nothing depends on it: safe to power off) or down.`
	addWorkerDaemon(d, cmd)
	return cmd
}

func newWorkerListCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List workers",
		Long:    "List workers." + exitTable,
		Example: "  sluice worker list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			workers, err := c.Workers(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(workers, func(w io.Writer) error { return printWorkers(w, workers) })
		}),
	}
}

func printWorkers(w io.Writer, workers []api.Worker) error {
	rows := make([][]string, 0, len(workers))
	for _, x := range workers {
		state := x.State
		if !x.RevokedAt.IsZero() {
			state += " (revoked)"
		}
		rows = append(rows, []string{x.ID, x.Runtime, state, fmt.Sprint(x.Machines),
			fmt.Sprint(x.Reserved),
			cores(x.CPUsUsed) + "/" + cores(x.CPUs),
			byteCount(x.MemoryUsed<<20) + " / " + byteCount(x.MemoryMiB<<20),
			fmt.Sprint(x.PoolReady), yesNo(x.SafeToStop), x.Address})
	}
	return printTable(w, []string{"WORKER", "RUNTIME", "STATE", "MACHINES", "RESERVED", "CPUS",
		"MEMORY", "POOL", "SAFE TO STOP", "ADDRESS"}, rows)
}

func newWorkerShowCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "show WORKER",
		Short:   "Show one worker and the machines on it",
		Long:    "Show one worker and the machines on it." + exitTable,
		Example: "  sluice worker show w1",
		Args:    exactly("a worker"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			worker, err := c.Worker(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if d.json {
				return d.printJSON(worker)
			}
			machines, err := c.Machines(cmd.Context(), client.MachineFilter{Worker: worker.ID})
			if err != nil {
				return err
			}
			return printWorker(d.stdout, worker, machines)
		}),
	}
}

func printWorker(w io.Writer, x api.Worker, machines []api.Machine) error {
	fmt.Fprintf(w, "Worker: %s\n", x.ID)
	err := printFields(w, [][2]string{
		{"State", x.State}, {"Safe to stop", yesNo(x.SafeToStop)},
		{"Cordon reason", x.CordonReason}, {"Drain", x.Drain},
		{"Address", x.Address}, {"Runtime", x.Runtime}, {"Acceleration", acceleration(x)},
		{"Version", x.Version}, {"Release", x.Release},
		{"CPUs", cores(x.CPUsUsed) + " used of " + cores(x.CPUs)},
		{"Memory", byteCount(x.MemoryUsed<<20) + " used of " + byteCount(x.MemoryMiB<<20)},
		{"Reservations", fmt.Sprint(x.Reserved)}, {"Pool", fmt.Sprint(x.PoolReady) + " empty VMs"},
		{"Pressure", pressureOf(x)}, {"Store credentials", storeKeyOf(x)},
		{"Last seen", timestamp(x.LastSeen)}, {"Joined", timestamp(x.JoinedAt)},
	})
	if err != nil {
		return err
	}
	if !x.RevokedAt.IsZero() {
		fmt.Fprintf(w, "  revoked at %s: shut out until it joins anew\n", timestamp(x.RevokedAt))
	}
	for _, c := range x.Conditions {
		fmt.Fprintf(w, "  condition %s since %s: %s\n", c.Name, timestamp(c.Since), c.Message)
		if c.Remedy != "" {
			fmt.Fprintf(w, "    try: %s\n", c.Remedy)
		}
	}
	fmt.Fprintf(w, "\nMachines [%d]\n", len(machines))
	return printMachines(w, machines)
}

// storeKeyOf names the credentials of the store that a worker uses; "" if it hasn't said.
func storeKeyOf(x api.Worker) string {
	k := x.StoreKey
	switch {
	case k == nil:
		return ""
	case k.Source == fleet.StoreKeyOwn:
		return "its host's own"
	case k.KeyID == "":
		return "none of the server's yet"
	case k.Expires.IsZero():
		return k.KeyID + " of the server"
	}
	return k.KeyID + " of the server, until " + timestamp(k.Expires)
}

// pressureOf is how much of the time work on a worker's host waits; "" until it is known.
func pressureOf(x api.Worker) string {
	p := x.Pressure
	if p == nil {
		return ""
	}
	s := fmt.Sprintf("cpu %.0f %%, memory %.0f %%, io %.0f %%; load %.1f on %d cores", 100*p.CPU,
		100*p.Memory, 100*p.IO, p.Load, p.Cores)
	if p.High {
		s += " (high: starts are slow, and waited for)"
	}
	return s
}

// acceleration returns what executes the instructions of a worker's VMs, with the reason; "" if
// they have no kernel of their own.
func acceleration(x api.Worker) string {
	switch {
	case x.Acceleration != "" && x.AccelerationReason != "":
		return x.Acceleration + " (" + x.AccelerationReason + ")"
	case x.Acceleration == "" && x.Runtime == "qemu":
		return "not known yet"
	}
	return x.Acceleration
}

func newWorkerCordonCommand(d *deps) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "cordon WORKER [WORKER...]",
		Short:   "Keep new machines off workers; those on them stay",
		Long:    "Keep new machines off workers; those on them stay." + severalExit + exitTable,
		Example: "  sluice worker cordon w1 --reason 'fan is loud'\n  sluice worker cordon w1 w2",
		Args:    atLeastOne("a worker"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return d.eachWorker(args, func(id string) (api.Worker,
				error) {
				return c.Cordon(cmd.Context(), id, reason)
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people")
	return cmd
}

func newWorkerUncordonCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "uncordon WORKER [WORKER...]",
		Short:   "Let workers take machines again",
		Long:    "Let workers take machines again, also after a drain." + severalExit + exitTable,
		Example: "  sluice worker uncordon w1\n  sluice worker uncordon w1 w2",
		Args:    atLeastOne("a worker"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return d.eachWorker(args, func(id string) (api.Worker,
				error) {
				return c.Uncordon(cmd.Context(), id)
			})
		}),
	}
}

const severalExit = `Of several workers each is tried and told of, also after one that fails; the exit
code is then the highest. With --json several are an array of those that were
changed.
`

// eachWorker calls do for each worker and prints the result. It goes on after an error.
func (d *deps) eachWorker(ids []string, do func(id string) (api.Worker, error)) error {
	done := make([]api.Worker, 0, len(ids))
	var failed several
	for _, id := range ids {
		x, err := do(id)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		done = append(done, x)
	}
	if err := d.printWorkerStates(ids, done); err != nil {
		return err
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

// printWorkerStates prints a line for each worker; as JSON one that was asked for alone is no
// array.
func (d *deps) printWorkerStates(asked []string, done []api.Worker) error {
	switch {
	case d.json && len(asked) > 1:
		return d.printJSON(done)
	case d.json && len(done) == 1:
		return d.printJSON(done[0])
	case d.json:
		return nil
	}
	for _, x := range done {
		if _, err := fmt.Fprintf(d.stdout, "%s  %s\n", x.ID, x.State); err != nil {
			return err
		}
	}
	return nil
}

func newWorkerDrainCommand(d *deps) *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "drain WORKER [WORKER...]",
		Short: "Empty workers: move every machine on them to others",
		Long: `Empty workers: cordon them all at once, and move every machine on them to other
workers. No byte of a disk is copied. Each step of each move is shown as it happens,
and a table at the end: machine, from and to, pause, disk bytes copied.

A machine that can't be moved keeps running where it is, and the drain says why and
what would clear it. By default the command then ends after a few seconds with exit
code 8, while the drain goes on by itself; with --wait it stays until the drain has
ended. --detach only begins the drain. Interrupting the command does not stop the
drain: see sluice drain cancel.
` + exitTable + drainExit,
		Example: "  sluice worker drain w1\n  sluice worker drain w1 w2 --wait\n  sluice worker drain w1 --detach --json",
		Args:    atLeastOne("a worker"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if f.wait && f.detach {
				return usageError("--wait and --detach exclude each other")
			}
			drain, err := c.StartDrain(cmd.Context(), args...)
			if err != nil {
				return err
			}
			if f.detach {
				return d.result(drain, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s\n", drain.ID)
					return err
				})
			}
			return d.followDrain(cmd.Context(), c, drain, f)
		}),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.detach, "detach", false, "begin the drain and print its id")
	return cmd
}

const drainExit = "\n  8  not drained: blocked, cancelled or out of time"

// drainFlags say how long to watch a drain.
type drainFlags struct {
	wait, detach bool
	timeout      time.Duration
}

func (f *drainFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.wait, "wait", false,
		"stay until the drain has ended, also while it is blocked")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "longest time to stay (default: no bound)")
}
