package main

import (
	"cmp"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/image/apart"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const unpackName = "unpack-image"

// newUnpackCommand is what a server runs for each image that it builds, with limits of its own.
func newUnpackCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use: unpackName + " REQUEST", Short: "Make a raw image of a tar stream, for a server",
		Hidden: true, Args: exactly("REQUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return apart.Serve(cmd.Context(), args[0], d.stdin, d.stdout)
		},
	}
}

// imageBuilds returns the directory in which images are unpacked, which is empty, and what does it:
// this program, in a process of its own.
func (f *serverFlags) imageBuilds() (string, image.Maker, error) {
	// below the given one, in which there may be other things: it is removed at each start
	dir, err := emptyDir(filepath.Join(cmp.Or(f.builds, f.data), "builds"))
	if err != nil {
		return "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, errs.Wrap(errs.Unavailable, err, "find this program")
	}
	return dir, apart.Maker([]string{self, unpackName}, apart.Limits{}), nil
}
