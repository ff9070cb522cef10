package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keyFile says where the key of a machine's disk was written.
type keyFile struct {
	Machine string `json:"machine"`
	DiskURL string `json:"disk_url"`
	File    string `json:"file"`
}

func newMachineDiskKeyCommand(d *deps) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "disk-key MACHINE --out FILE",
		Short: "Write the key of a machine's disk to a file",
		Long: `Write the key of a machine's disk to a new file, for sluice disk fsck, info, export and
the like. It opens the disk of this one machine only. Who has it can read the disk
until the network is rekeyed: remove the file when you are done. The machine's
history tells that the key was handed out.
` + exitTable,
		Example: `  sluice machine disk-key web-1 --out web-1.key
  sluice disk fsck s3://bucket/fleet/disks/01a2b3c4d5e6f7 --data --key-file web-1.key`,
		Args:    exactly("a machine"),
		PreRunE: requires("out"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			// first the file, so that no key is handed out that nobody gets
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return errs.Wrap(errs.Exists, err, "make the key file").
					WithRemedy("name a file that isn't there yet, in a directory that is")
			}
			k, err := c.MachineDiskKey(cmd.Context(), args[0])
			if err == nil {
				_, err = f.WriteString(k.Key + "\n")
			}
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(err, os.Remove(out))
			}
			shown := keyFile{Machine: k.Machine, DiskURL: k.DiskURL, File: out}
			return d.result(shown, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  opens %s\n", out, k.DiskURL)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write it to, which must not exist (required)")
	return cmd
}
