package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
)

func newImageCommand(d *deps) *cobra.Command {
	return newNoun("image", "Build and list images: base file trees that machines start from",
		newImageCreateCommand(d),
		newImageListCommand(d),
		newImageCacheCommand(d),
	)
}

func newImageListCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List images",
		Long:    "List images." + exitTable,
		Example: "  sluice image list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			images, err := c.Images(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(images, func(w io.Writer) error {
				rows := make([][]string, 0, len(images))
				for _, i := range images {
					rows = append(rows, []string{i.Name, byteCount(i.SizeBytes),
						timestamp(i.CreatedAt), i.DiskURL})
				}
				return printTable(w, []string{"IMAGE", "SIZE", "CREATED", "DISK URL"}, rows)
			})
		}),
	}
}

type imageFlags struct {
	from, size    string
	include       []string
	suite, mirror string
	cache         imageCache
}

const imageCreateHelp = `Build an image: a template disk with a file tree, of which the disks of machines are
forks. SOURCE is a directory, a tar archive (plain, .gz or .zst), or the word debian
for a minimal Debian made on this machine, which needs root. A directory or archive
may also be an OCI image layout or what docker save writes; then the files of its
one image are taken, and of its config (Env, Cmd, …) nothing but a note: machines
don't follow it. The archive is streamed to the server; half an upload never becomes
an image.

No image has what the host that built it uses for itself, or what each machine makes
for itself, whatever its SOURCE holds: /etc/resolv.conf, hosts and hostname, proxies
and credentials of apt, ssh host keys, machine-id, the caches of apt, and what is in
files below /var/log. Users and groups above 65535 become nobody.

A Debian is made by debootstrap, from the mirror that this machine's apt uses or
--mirror. The first one takes as long as fetching and configuring 90 packages does,
often half a minute and on a slow line or a busy machine some. It is kept (see
sluice image cache), and packages are added to a copy of it. Its sources.list names
--mirror, or else the public mirror that is debootstrap's default.
`

func newImageCreateCommand(d *deps) *cobra.Command {
	var f imageFlags
	cmd := &cobra.Command{
		Use:   "create NAME --from SOURCE",
		Short: "Build an image",
		Long:  imageCreateHelp + exitTable,
		Example: `  sluice image create base --from debian --include busybox,curl
  sluice image create site --from ./rootfs --size 2GiB
  sluice image create site --from rootfs.tar`,
		Args:    exactly("a name"),
		PreRunE: requires("from"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			size, err := bytesize.Parse(f.size, 1<<30)
			if err != nil {
				return err
			}
			at := d.newSteps(cmd.Context(), "image "+args[0])
			defer at.end()
			source, err := d.openImageSource(cmd.Context(), f, at)
			if err != nil {
				return err
			}
			defer source.Close()
			body := at.reader(source, "sending its files", source.bytes,
				"sent; the server makes its disk")
			image, err := c.CreateImage(cmd.Context(), args[0], size, body)
			at.end()
			if err != nil {
				return err
			}
			for _, note := range image.Notes {
				fmt.Fprintln(d.stderr, "note: "+note)
			}
			return d.result(image, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s  %s\n", image.Name, byteCount(image.SizeBytes),
					image.DiskURL)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&f.from, "from", "", "directory, tar archive, or debian (required)")
	cmd.Flags().StringVar(&f.size, "size", "1GiB", "size of the disk; a bare number is in GiB")
	cmd.Flags().StringSliceVar(&f.include, "include", nil,
		"with --from debian: more packages, separated by commas")
	cmd.Flags().StringVar(&f.suite, "suite", "bookworm", "with --from debian: which one")
	cmd.Flags().StringVar(&f.mirror, "mirror", "",
		"with --from debian: URL of the mirror, also for the machines' apt")
	f.cache.add(cmd, d)
	return cmd
}
