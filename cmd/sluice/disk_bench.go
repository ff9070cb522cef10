package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk/benchmark"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// diskBenchmark is what disk bench answers.
type diskBenchmark struct {
	URL       string             `json:"url"`
	SizeBytes int64              `json:"size_bytes"`
	Results   []benchmark.Result `json:"results"`
}

func newDiskBenchCommand(d *deps) *cobra.Command {
	var size, cacheSize string
	cfg := benchmark.Config{}
	cmd := &cobra.Command{
		Use:   "bench URL",
		Short: "Measure what a store lets a disk do",
		Long: `Make a disk at URL, where there must be none, measure the store and the disk in one
run, and remove the disk again. Beside a figure of the disk stands what it reaches
of the store's own, for the requests that it can't do without: of the time of one
PUT for a write with its flush, of the rate of large PUTs for writing in sequence,
and so on. The disk is used as a program of this process uses it; a mounted one adds
the kernel's share. Content is random, so nothing is compressed. It writes about
four times --size to the store.
` + exitTable,
		Example: "  sluice disk bench s3://bucket/disks/bench\n  sluice disk bench file:///srv/pool/disks/bench --size 1GiB --duration 10s --json",
		Args:    exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if cfg.Size, err = bytesize.Parse(size, 1<<20); err != nil {
				return err
			}
			cached := int64(0)
			if cacheSize != "" {
				if cached, err = bytesize.Parse(cacheSize, 1<<20); err != nil {
					return err
				}
			}
			out, err := d.benchDisk(cmd.Context(), args[0], cfg, cached)
			if err != nil {
				return err
			}
			return d.result(out, func(w io.Writer) error { return printBenchmark(w, out) })
		},
	}
	cmd.Flags().StringVar(&size, "size", "256MiB",
		"content that is written and read in sequence, in whole MiB; a bare number is in MiB")
	cmd.Flags().DurationVar(&cfg.Duration, "duration", 3*time.Second,
		"how long each step takes that moves no fixed amount, up to 10m")
	cmd.Flags().StringVar(&cacheSize, "cache", "",
		"size of a cache in a temporary file, for warm reads; without it, memory only")
	return cmd
}

func (d *deps) benchDisk(ctx context.Context, url string, cfg benchmark.Config,
	cached int64) (_ diskBenchmark, err error) {
	if err := mustBeOutside(ctx, url); err != nil {
		return diskBenchmark{}, err
	}
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return diskBenchmark{}, err
	}
	defer ref.Store.Close()
	if err := blobs.Probe(ctx, ref.Store, ref.URL); err != nil {
		return diskBenchmark{}, err
	}
	cfg.LogURL, cfg.OpenLog = ref.LogURL, openLog
	if err := probeLog(ctx, ref.LogURL); err != nil {
		return diskBenchmark{}, err
	}
	if err := mustBeVacant(ctx, ref); err != nil {
		return diskBenchmark{}, err
	}
	if cached > 0 {
		c, remove, err := temporaryCache(cached)
		if err != nil {
			return diskBenchmark{}, err
		}
		defer remove()
		cfg.Cache = c
	}
	bar := d.newDiskBar(ctx, "measuring, step", countsObjects)
	defer bar.end()
	cfg.Step = func(_ string, n, of int) { bar.set(int64(n-1), int64(of)) }
	cfg.Store, cfg.Path = ref.Store, ref.Path
	results, err := benchmark.Run(ctx, cfg)
	return diskBenchmark{URL: ref.URL, SizeBytes: cfg.Size, Results: results}, err
}

// temporaryCache returns a cache in a file that nobody else uses, and what closes and removes it.
func temporaryCache(size int64) (*cache.Cache, func(), error) {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, nil, errs.Wrap(errs.Unavailable, err,
			"make a directory for the cache").WithRemedy(
			"set TMPDIR to a directory that can be written")
	}
	c, err := cache.Open(filepath.Join(dir, "cache"), size)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, func() {
		_ = c.Close()
		_ = os.RemoveAll(dir) // the system's temporary files are swept
	}, nil
}

func printBenchmark(w io.Writer, b diskBenchmark) error {
	rows := make([][]string, 0, len(b.Results))
	for _, r := range b.Results {
		rate, beside := "", ""
		if r.BytesPerSec > 0 {
			rate = byteCount(int64(r.BytesPerSec)) + "/s"
		}
		if r.Against != "" {
			beside = fmt.Sprintf("%.2f x %s", r.Ratio, r.Against)
		}
		rows = append(rows, []string{r.Name, fmt.Sprint(r.Ops), fmt.Sprintf("%.3f", r.P50MS),
			fmt.Sprintf("%.3f", r.P99MS),
			fmt.Sprintf("%.0f", r.OpsPerSec), rate, beside})
	}
	return printTable(w, []string{"STEP", "N", "P50 MS", "P99 MS", "PER S", "RATE",
		"BESIDE THE STORE"}, rows)
}
