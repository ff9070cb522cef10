package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/client"
)

func newMachineLogsCommand(d *deps) *cobra.Command {
	var o client.LogOptions
	cmd := &cobra.Command{
		Use:   "logs MACHINE",
		Short: "Print what a machine's services wrote",
		Long: `Print what a machine's services wrote. Following ends when the machine stops or moves, and says so.
` + exitTable,
		Example: "  sluice machine logs web-1\n  sluice machine logs web-1 --service web --lines 20 --follow",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if o.Lines < 0 {
				return usageError("--lines %d is negative", o.Lines)
			}
			logs, err := c.Logs(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			defer logs.Close()
			counted := &countedReader{r: logs}
			err = d.copyLines(counted)
			if o.Follow && cmd.Context().Err() != nil {
				return nil // interrupted by the one who follows
			}
			if o.Follow && (err == nil || errors.Is(err, io.ErrUnexpectedEOF)) {
				d.sayLogEnded(cmd.Context(), c, args[0])
				return nil
			}
			if err == nil && counted.n == 0 {
				d.sayLogEmpty(cmd.Context(), c, args[0])
			}
			return err
		}),
	}
	cmd.Flags().StringVar(&o.Service, "service", "", "only this service")
	cmd.Flags().IntVar(&o.Lines, "lines", 200, "how many of the newest lines")
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with new lines as they come")
	return cmd
}

// countedReader counts what is read.
type countedReader struct {
	r io.Reader
	n int64
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	return n, err
}

// sayLogEmpty says why a log is empty where that is not for want of output.
func (d *deps) sayLogEmpty(ctx context.Context, c *client.Client, ref string) {
	m, err := c.Machine(ctx, ref)
	if err != nil || len(m.Config.Services) > 0 {
		return // it was an extra; the log itself was read
	}
	fmt.Fprintf(d.stderr, "machine %s has no services, and only what these write is kept; give it some by: sluice machine create --service\n", m.Name)
}

// sayLogEnded says why a followed log goes on no further.
func (d *deps) sayLogEnded(ctx context.Context, c *client.Client, ref string) {
	m, err := c.Machine(ctx, ref)
	switch {
	case err != nil:
		fmt.Fprintf(d.stderr, "the log of machine %s ended, and what became of it can't be told: %v\n", ref, err)
	case m.Desired == "started":
		fmt.Fprintf(d.stderr, "the log ended here, because machine %s moves or was started anew; it is %s on %s. To follow it there: sluice machine logs %s -f\n",
			m.Name, m.State, orDash(m.Worker), ref)
	default:
		fmt.Fprintf(d.stderr, "the log ended, because machine %s is %s\n", m.Name, m.State)
	}
}

// copyLines prints lines as they come; with --json each is an object on a line of its own.
func (d *deps) copyLines(logs io.Reader) error {
	if !d.json {
		_, err := io.Copy(d.stdout, logs)
		return err
	}
	lines := bufio.NewReader(logs)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := d.printJSONLine(map[string]string{"line": strings.TrimSuffix(line, "\n")}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
