package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
)

const (
	defaultImageCache  = "/var/cache/sluice/images"
	defaultCacheLimit  = "4GiB"
	imageCacheVariable = "SLUICE_IMAGE_CACHE"
)

// imageCache are the flags that say where trees are kept, and how many.
type imageCache struct{ dir, limit string }

func (f *imageCache) add(cmd *cobra.Command, d *deps) {
	dir := d.env(imageCacheVariable)
	if dir == "" {
		dir = defaultImageCache
		if base := d.env("XDG_CACHE_HOME"); base != "" {
			dir = filepath.Join(base, "sluice", "images")
		}
	}
	limit := d.env(imageCacheVariable + "_LIMIT")
	if limit == "" {
		limit = defaultCacheLimit
	}
	cmd.Flags().StringVar(&f.dir, "cache", dir,
		"where Debian trees are kept ("+imageCacheVariable+", else below XDG_CACHE_HOME)")
	cmd.Flags().StringVar(&f.limit, "cache-limit", limit,
		"size that they are kept within, what was used last first ("+imageCacheVariable+"_LIMIT)")
}

func (f *imageCache) cache() (image.Cache, error) {
	limit, err := bytesize.Parse(f.limit, 1<<30)
	if err != nil {
		return image.Cache{}, err
	}
	return image.Cache{Dir: f.dir, Limit: limit}, nil
}

func newImageCacheCommand(d *deps) *cobra.Command {
	return newNoun("cache", "The Debian trees that image create keeps on this machine",
		newImageCacheListCommand(d),
		newImageCachePruneCommand(d),
	)
}

func newImageCacheListCommand(d *deps) *cobra.Command {
	var f imageCache
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the trees, what was used last first",
		Long:    "List the trees that image create --from debian keeps on this machine, what was used last first." + exitTable,
		Example: "  sluice image cache list",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			c, err := f.cache()
			if err != nil {
				return err
			}
			trees, err := c.List()
			if err != nil {
				return err
			}
			return d.printTrees(c, trees)
		},
	}
	f.add(cmd, d)
	return cmd
}

func newImageCachePruneCommand(d *deps) *cobra.Command {
	var f imageCache
	var all bool
	cmd := &cobra.Command{
		Use:   "prune [--all]",
		Short: "Remove trees until the rest is within the limit",
		Long: `Remove the trees that weren't used for longest, until the rest is within
--cache-limit, and what an image create that was killed has left; with --all, all
that are not in use. image create does the former by itself. It prints what it has
removed. Images are not touched: they are in the fleet's store.
` + exitTable,
		Example: "  sluice image cache prune\n  sluice image cache prune --all",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			c, err := f.cache()
			if err != nil {
				return err
			}
			remove := c.Prune
			if all {
				remove = c.Clear
			}
			trees, err := remove()
			if err != nil {
				return err
			}
			return d.printTrees(c, trees)
		},
	}
	f.add(cmd, d)
	cmd.Flags().BoolVar(&all, "all", false, "all that are not in use")
	return cmd
}

func (d *deps) printTrees(c image.Cache, trees []image.Cached) error {
	if trees == nil {
		trees = []image.Cached{} // an empty array, not null
	}
	return d.result(trees, func(w io.Writer) error {
		rows := make([][]string, 0, len(trees))
		var total int64
		for _, t := range trees {
			total += t.Bytes
			rows = append(rows, []string{t.Name, byteCount(t.Bytes), timestamp(t.Used),
				yesNo(t.InUse)})
		}
		if err := printTable(w, []string{"TREE", "SIZE", "LAST USED", "IN USE"}, rows); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\n%s in %s\n", byteCount(total), c.Dir)
		return err
	})
}
