package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

func newMachineCommand(d *deps) *cobra.Command {
	cmd := newNoun("machine", "Create, run and move machines",
		newMachineCreateCommand(d),
		newMachineListCommand(d),
		newMachineStatusCommand(d),
		newMachineEventsCommand(d),
		newMachineStartCommand(d),
		newMachineStopCommand(d),
		newMachineDestroyCommand(d),
		newMachineDiskKeyCommand(d),
		newMachineMigrateCommand(d),
		newMachineExecCommand(d),
		newMachineLogsCommand(d),
	)
	cmd.Long = `A machine is a workload with an identity, a config and a disk. Machines are referred
to by id, by app/name, or by a name that is unique in the fleet; never by a part of
it.`
	return cmd
}

// withClient runs do with a client of the fleet.
func (d *deps) withClient(do func(cmd *cobra.Command, c *client.Client,
	args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := d.client()
		if err != nil {
			return err
		}
		return do(cmd, c, args)
	}
}

func newMachineListCommand(d *deps) *cobra.Command {
	var f client.MachineFilter
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ps"},
		Short:   "List machines",
		Long:    "List machines, by app and name." + exitTable,
		Example: "  sluice machine list\n  sluice machine list --app shop --json\n  sluice machine list --worker w1",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			machines, err := c.Machines(cmd.Context(), f)
			if err != nil {
				return err
			}
			slices.SortFunc(machines, func(a, b api.Machine) int {
				return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name))
			})
			return d.result(machines, func(w io.Writer) error { return printMachines(w, machines) })
		}),
	}
	cmd.Flags().StringVar(&f.App, "app", "", "only this app")
	cmd.Flags().StringVar(&f.Network, "network", "", "only this network")
	cmd.Flags().StringVar(&f.Worker, "worker", "", "only on this worker")
	cmd.Flags().StringVar(&f.State, "state", "", "only in this state")
	return cmd
}

func printMachines(w io.Writer, machines []api.Machine) error {
	rows := make([][]string, 0, len(machines))
	for _, m := range machines {
		rows = append(rows, []string{m.ID, m.Name, m.App, m.Network, m.State, yesNo(m.Healthy),
			m.Worker, m.PrivateIP, m.Config.Image})
	}
	return printTable(w, []string{"ID", "NAME", "APP", "NETWORK", "STATE", "HEALTHY", "WORKER",
		"PRIVATE IP", "IMAGE"}, rows)
}

func newMachineStatusCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "status MACHINE",
		Short: "Show one machine: where it is, its disk, its services, what happened to it",
		Long: `Show one machine: where it is, its disk, its services, and what happened to it,
oldest first. A line with migrated=true says that the machine was started on another
worker: its instance id and its private address changed, its id, name, config and
disk did not.
` + exitTable,
		Example: "  sluice machine status web-1\n  sluice machine status shop/web-1 --json",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := c.Machine(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.result(m, func(w io.Writer) error { return printMachine(w, m) })
		}),
	}
}

func printMachine(w io.Writer, m api.Machine) error {
	fmt.Fprintf(w, "Machine ID:  %s\nInstance ID: %s\nState:       %s\n", m.ID,
		orDash(m.InstanceID), stateOf(m))
	fmt.Fprintln(w, "\nVM")
	err := printFields(w, [][2]string{
		{"ID", m.ID}, {"Instance ID", m.InstanceID}, {"State", m.State}, {"Desired", m.Desired},
		{"Image", m.Config.Image}, {"Name", m.Name}, {"App", m.App}, {"Network", m.Network},
		{"Private IP", m.PrivateIP}, {"Worker", m.Worker}, {"Release", m.Release},
		{"Version", m.Version},
		{"Isolation", m.Config.Isolation},
		{"CPUs", cores(m.Config.CPUs)}, {"Memory", byteCount(m.Config.MemoryMiB << 20)},
		{"Generation", fmt.Sprint(m.Generation)}, {"Created", timestamp(m.CreatedAt)},
		{"Updated", timestamp(m.UpdatedAt)},
		{"Disk URL", m.DiskURL}, {"Encrypted", yesNo(m.Encrypted)},
		{"Disk epoch", fmt.Sprint(m.Disk.Epoch)},
		{"Disk I/O", fmt.Sprintf("%d requests, %s read, %s written since attach",
			m.Disk.Requests, byteCount(m.Disk.BytesRead), byteCount(m.Disk.BytesWritten))},
	})
	if err != nil {
		return err
	}
	if m.Disk.StoredBytes > 0 {
		fmt.Fprintf(w, "\nIn the store: %s, garbage included", byteCount(m.Disk.StoredBytes))
		if m.Disk.QuotaBytes > 0 {
			fmt.Fprintf(w, ", of a quota of %s", byteCount(m.Disk.QuotaBytes))
		}
		fmt.Fprintln(w)
	}
	if m.Disk.Ungrown != "" {
		fmt.Fprintf(w, "\nDisk: %s\n", m.Disk.Ungrown)
	}
	if s := m.DiskStall; s != nil {
		fmt.Fprintf(w, "\nDisk stalled since %s (%s): %s\n  try: %s\n", timestamp(s.Since),
			s.Operation, s.Reason, s.Remedy)
	}
	if o := m.OutOfMemory; o != nil {
		fmt.Fprintf(w,
			"\nOut of memory: since it was started here the kernel has killed %d of its processes, the last at %s\n"+
				"  try: a machine with more --memory, or less in this one\n", o.Kills,
			timestamp(o.Last))
	}
	if err := printServices(w, m); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nEvent Logs")
	return printEvents(w, m.Events)
}

// stateOf is a machine's state with what needs saying about it.
func stateOf(m api.Machine) string {
	var notes []string
	if m.State == "started" && !m.Healthy && (m.DiskStall == nil || !m.DiskStall.Paused) {
		notes = append(notes, "not healthy")
	}
	switch {
	case m.DiskStall != nil:
		notes = append(notes, stallText(m.DiskStall))
	case m.Reason != "":
		notes = append(notes, m.Reason)
	}
	if m.Operation != "" {
		notes = append(notes, "busy with "+m.Operation)
	}
	if len(notes) == 0 {
		return m.State
	}
	return m.State + " (" + strings.Join(notes, "; ") + ")"
}

// stallText says that a disk's store has stalled, and whether the machine is paused for that.
func stallText(s *api.DiskStall) string {
	text := "disk stalled since " + timestamp(s.Since)
	if s.Paused {
		text = "paused: " + text
	}
	return text
}

func printServices(w io.Writer, m api.Machine) error {
	if len(m.Config.Services) == 0 {
		return nil
	}
	states := map[string]api.ServiceInfo{}
	ready := 0
	for _, s := range m.Services {
		states[s.Name] = s
		if s.State == "ready" {
			ready++
		}
	}
	fmt.Fprintf(w, "\nServices [%d/%d]\n", ready, len(m.Config.Services))
	rows := make([][]string, 0, len(m.Config.Services))
	for _, s := range m.Config.Services {
		have := states[s.Name]
		pid := ""
		if have.PID != 0 {
			pid = fmt.Sprint(have.PID)
		}
		rows = append(rows, []string{s.Name, have.State, pid, fmt.Sprint(have.Restarts),
			checkText(s), have.Error})
	}
	return printTable(w, []string{"NAME", "STATE", "PID", "RESTARTS", "CHECK", "ERROR"}, rows)
}

func checkText(s api.Service) string {
	c := s.Check
	if c == nil {
		return ""
	}
	switch c.Kind {
	case "http":
		return fmt.Sprintf("http :%d%s", c.Port, c.Path)
	case "tcp":
		return fmt.Sprintf("tcp :%d", c.Port)
	default:
		return c.Kind + " " + strings.Join(c.Cmd, " ")
	}
}

func newMachineEventsCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "events MACHINE",
		Short:   "Show what happened to a machine, oldest first",
		Long:    "Show what happened to a machine, oldest first." + exitTable,
		Example: "  sluice machine events web-1",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			events, err := c.MachineEvents(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return d.result(events, func(w io.Writer) error { return printEvents(w, events) })
		}),
	}
}

func printEvents(w io.Writer, events []api.Event) error {
	rows := make([][]string, 0, len(events))
	for _, e := range events {
		rows = append(rows, []string{e.State, e.Event, e.Source, timestamp(e.Time),
			infoText(e.Info)})
	}
	return printTable(w, []string{"STATE", "EVENT", "SOURCE", "TIMESTAMP", "INFO"}, rows)
}

func infoText(info map[string]string) string {
	keys := make([]string, 0, len(info))
	for k := range info {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	parts := make([]string, 0, len(keys))
	for _, k := range keys {
		parts = append(parts, k+"="+info[k])
	}
	return strings.Join(parts, ",")
}

// hopeless is after how many ends of a service a wait gives up. They take at least six seconds.
const hopeless = 6

// keepsEnding returns a service that ends over and over.
func keepsEnding(m api.Machine) bool {
	return slices.ContainsFunc(m.Services,
		func(s api.ServiceInfo) bool { return s.Restarts >= hopeless && s.State != "ready" })
}

// waitStarted waits until a machine runs and is healthy, or failed, or has a service that ends over
// and over.
func waitStarted(ctx context.Context, c *client.Client, id string) (api.Machine, error) {
	m, err := c.WaitMachine(ctx, id, client.UntilStarted, func(m api.Machine) bool {
		return m.Healthy || m.State == "failed" || m.Desired != "started" || keepsEnding(m)
	})
	switch {
	case err != nil:
		return m, err
	case m.Healthy:
		return m, nil
	case m.State == "started" && m.Desired == "started":
		return m, &api.Error{Code: "failed", Message: "machine " + m.Name + " (" + m.ID +
			") doesn't get healthy: a service ends over and over",
			Cause: whatItWaitsFor(m), Remedy: "see: sluice machine logs " + m.ID +
				"; it is tried again for ever, and for a command that is to run once there is: sluice machine exec"}
	default:
		return m, &api.Error{Code: "failed",
			Message: "machine " + m.Name + " is " + m.State + " and not started", Cause: m.Reason,
			Remedy: "see: sluice machine status " + m.ID + " and: sluice machine logs " + m.ID}
	}
}
