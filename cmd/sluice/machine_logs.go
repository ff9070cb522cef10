package main

import (
	"bufio"
	"errors"
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
		Long: `Print what a machine's services wrote. Following ends when the machine stops or moves.
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
			err = d.copyLines(logs)
			if o.Follow && (cmd.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF)) {
				return nil // interrupted by the one who follows, or the machine has gone
			}
			return err
		}),
	}
	cmd.Flags().StringVar(&o.Service, "service", "", "only this service")
	cmd.Flags().IntVar(&o.Lines, "lines", 200, "how many of the newest lines")
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with new lines as they come")
	return cmd
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
