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

func newNetworkCommand(d *deps) *cobra.Command {
	return newNoun("network", "List networks, and change the keys of their machines' disks",
		newNetworkListCommand(d),
		newNetworkRekeyCommand(d),
	)
}

func newNetworkListCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List networks, with their keys",
		Long: `List networks: how many of their machines have an encrypted disk, the number of the
newest key, and how many disks are not under it yet. A network is made with its
first machine.
` + exitTable,
		Example: "  sluice network list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			networks, err := c.Networks(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(networks, func(w io.Writer) error { return printNetworks(w, networks) })
		}),
	}
}

func printNetworks(w io.Writer, networks []api.Network) error {
	rows := make([][]string, 0, len(networks))
	for _, n := range networks {
		key := "-"
		if n.Key > 0 {
			key = fmt.Sprint(n.Key)
		}
		rows = append(rows, []string{n.Name, fmt.Sprint(n.Encrypted), key,
			fmt.Sprint(len(n.Waiting))})
	}
	return printTable(w, []string{"NETWORK", "ENCRYPTED", "KEY", "WAITING"}, rows)
}

func newNetworkRekeyCommand(d *deps) *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "rekey NETWORK",
		Short: "Change the disks of a network's machines to a new key",
		Long: `Make a new key for a network, and change the disks of its machines to it, one after
the other, while they run. No data is rewritten, and no machine notices. A disk whose
machine is starting or moving is changed when that is over; both keys are good
meanwhile. If a rekey is under way already, this goes on with it.
` + exitTable,
		Example: "  sluice network rekey prod",
		Args:    exactly("a network"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			n, err := c.RekeyNetwork(cmd.Context(), args[0])
			if err == nil && wait {
				n, err = waitRekeyed(cmd.Context(), c, n, timeout)
			}
			if err != nil {
				return err
			}
			return d.result(n, func(w io.Writer) error {
				return printNetworks(w, []api.Network{n})
			})
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until all disks have the new key")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "longest time to wait")
	return cmd
}

// waitRekeyed waits until no disk of a network waits for its newest key.
func waitRekeyed(ctx context.Context, c *client.Client, n api.Network,
	timeout time.Duration) (api.Network, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for len(n.Waiting) > 0 {
		select {
		case <-ctx.Done():
			b := n.Waiting[0]
			e := errs.New(errs.Unavailable, "%d disks of network %s wait for their new key, which "+
				"goes on: %s", len(n.Waiting), n.Name, b.Detail)
			return n, e.WithRemedy("see sluice network list")
		case <-time.After(100 * time.Millisecond):
		}
		all, err := c.Networks(ctx)
		if err != nil && ctx.Err() == nil {
			return n, err
		}
		for _, now := range all {
			if now.Name == n.Name {
				n = now
			}
		}
	}
	return n, nil
}
