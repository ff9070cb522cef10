package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/backoff"
)

func newTopCommand(d *deps) *cobra.Command {
	var once bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch workers and machines",
		Long: `Watch workers and machines, by the second: how full and how busy workers are, and
what the disks of machines ask of the object store. Machines in trouble come first,
then the busiest. On a terminal it goes on until it is interrupted, and shows as
many machines as fit; else, and with --once, it looks once and shows all. What one
disk does inside: sluice disk top --machine.
` + exitTable,
		Example: "  sluice top\n  sluice top --once --json",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			if every < 100*time.Millisecond || every > time.Hour {
				return usageError("--every is between 100ms and 1h")
			}
			return d.fleetTop(cmd.Context(), c, every, once || d.json || terminal(d.stdout) == nil)
		}),
	}
	cmd.Flags().BoolVar(&once, "once", false, "look once, over one interval")
	cmd.Flags().DurationVar(&every, "every", time.Second, "the interval")
	return cmd
}

// fleetView is what top shows of a fleet.
type fleetView struct {
	Server   api.Server   `json:"server"`
	Workers  []api.Worker `json:"workers"`
	Machines []machineTop `json:"machines"`
}

// machineTop is one machine, with the rates of its disk's requests to the store, per second.
type machineTop struct {
	ID            string         `json:"id"`
	Name          string         `json:"name"` // app/name
	Worker        string         `json:"worker,omitempty"`
	State         string         `json:"state"`
	Healthy       bool           `json:"healthy"`
	Operation     string         `json:"operation,omitempty"`
	StoreRequests float64        `json:"store_requests"`
	ReadBytes     float64        `json:"read_bytes"`
	WrittenBytes  float64        `json:"written_bytes"`
	Stall         *api.DiskStall `json:"stall,omitempty"`

	instance string // to whose disk the counts belong
	counts   api.DiskActivity
}

// fleetReading is the state of a fleet at one moment.
type fleetReading struct {
	at       time.Time
	machines map[string]machineTop
}

func (d *deps) fleetTop(ctx context.Context, c *client.Client, every time.Duration,
	once bool) error {
	_, before, err := readFleet(ctx, c, fleetReading{})
	if err != nil {
		return err
	}
	for {
		if backoff.Sleep(ctx, every) != nil {
			return nil
		}
		var view fleetView
		if view, before, err = readFleet(ctx, c, before); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if once {
			return d.result(view, func(w io.Writer) error {
				return printFleet(w, &view,
					len(view.Machines))
			})
		}
		fmt.Fprint(d.stdout, clearScreen)
		if err := printFleet(d.stdout, &view, d.rowsLeft(len(view.Workers))); err != nil {
			return err
		}
	}
}

// readFleet reads the fleet's state, and sets the rates since the reading before.
func readFleet(ctx context.Context, c *client.Client, before fleetReading) (fleetView,
	fleetReading, error) {
	var view fleetView
	now := fleetReading{machines: map[string]machineTop{}}
	var err error
	if view.Server, err = c.Server(ctx); err != nil {
		return view, now, err
	}
	if view.Workers, err = c.Workers(ctx); err != nil {
		return view, now, err
	}
	machines, err := c.Machines(ctx, client.MachineFilter{})
	if err != nil {
		return view, now, err
	}
	now.at = time.Now()
	view.Machines = []machineTop{}
	for i := range machines {
		m := topOf(&machines[i])
		if old, ok := before.machines[m.ID]; ok && old.instance == m.instance {
			m.compare(old.counts, now.at.Sub(before.at))
		}
		now.machines[m.ID] = m
		view.Machines = append(view.Machines, m)
	}
	slices.SortStableFunc(view.Machines, func(a, b machineTop) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()),
			cmp.Compare(b.StoreRequests, a.StoreRequests),
			cmp.Compare(a.Name, b.Name))
	})
	return view, now, nil
}

func topOf(m *api.Machine) machineTop {
	return machineTop{ID: m.ID, Name: m.App + "/" + m.Name, Worker: m.Worker, State: m.State,
		Healthy:   m.Healthy,
		Operation: m.Operation, Stall: m.DiskStall, instance: m.InstanceID, counts: m.Disk}
}

// compare sets the rates. Counts of one instance only grow, except that a restarted worker may have
// lost some.
func (m *machineTop) compare(old api.DiskActivity, took time.Duration) {
	rate := func(from, to int64) float64 { return float64(max(to-from, 0)) / took.Seconds() }
	m.StoreRequests = rate(old.Requests, m.counts.Requests)
	m.ReadBytes = rate(old.BytesRead, m.counts.BytesRead)
	m.WrittenBytes = rate(old.BytesWritten, m.counts.BytesWritten)
}

// rank orders machines by how much they need to be seen.
func (m *machineTop) rank() int {
	switch {
	case m.Stall != nil || m.State == "failed" || m.State == "lost":
		return 0
	case m.Operation != "" || m.State == "started" && !m.Healthy:
		return 1
	case m.State == "stopped":
		return 3
	}
	return 2
}

// rowsLeft is how many machines fit on the terminal below the workers.
func (d *deps) rowsLeft(workers int) int {
	const around = 6 // the first line, two headers, two blank ones, and the last
	f := terminal(d.stdout)
	if f == nil {
		return 1 << 30
	}
	_, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 1 << 30
	}
	return max(height-around-workers, 1)
}

func printFleet(w io.Writer, v *fleetView, most int) error {
	healthy := 0
	for i := range v.Machines {
		if v.Machines[i].Healthy {
			healthy++
		}
	}
	fmt.Fprintf(w, "%s: %d workers, %d machines, %d of them healthy\n", v.Server.FleetID,
		len(v.Workers), len(v.Machines), healthy)
	if v.Server.Brake != "" {
		fmt.Fprintf(w, "brake: %s\n", v.Server.Brake)
	}
	rows := make([][]string, 0, len(v.Workers))
	for _, x := range v.Workers {
		pressure := ""
		if p := x.Pressure; p != nil {
			pressure = fmt.Sprintf("%.0f%%", 100*max(p.CPU, p.Memory, p.IO))
		}
		rows = append(rows, []string{x.ID, x.State, fmt.Sprint(x.Machines), fmt.Sprint(x.Reserved),
			cores(x.CPUsUsed) + "/" + cores(x.CPUs),
			byteCount(x.MemoryUsed<<20) + " / " + byteCount(x.MemoryMiB<<20),
			fmt.Sprint(x.PoolReady),
			pressure})
	}
	fmt.Fprintln(w)
	if err := printTable(w, []string{"WORKER", "STATE", "MACHINES", "RESERVED", "CPUS", "MEMORY",
		"POOL", "PRESSURE"}, rows); err != nil {
		return err
	}
	shown := v.Machines[:min(most, len(v.Machines))]
	rows = make([][]string, 0, len(shown))
	for i := range shown {
		rows = append(rows, shown[i].row())
	}
	fmt.Fprintln(w)
	if err := printTable(w, []string{"MACHINE", "WORKER", "STATE", "HEALTHY", "STORE/S", "READ/S",
		"WRITTEN/S", "OPERATION"}, rows); err != nil {
		return err
	}
	if left := len(v.Machines) - len(shown); left > 0 {
		fmt.Fprintf(w, "and %d more: sluice machine list\n", left)
	}
	return nil
}

func (m *machineTop) row() []string {
	state := m.State
	if m.Stall != nil {
		state += ", stalled"
	}
	return []string{m.Name, m.Worker, state, yesNo(m.Healthy), perSecond(m.StoreRequests),
		byteCount(int64(m.ReadBytes)),
		byteCount(int64(m.WrittenBytes)), m.Operation}
}
