package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk/gc"
)

// collected is what disk collect answers.
type collected struct {
	Pool  string        `json:"pool"`
	Grace time.Duration `json:"grace_ns"`
	*gc.Report
}

type collectFlags struct {
	dryRun, yes bool
	grace       time.Duration
}

func newDiskCollectCommand(d *deps) *cobra.Command {
	var f collectFlags
	cmd := &cobra.Command{
		Use:   "collect POOL-URL",
		Short: "Delete the objects of a pool that no disk needs any more",
		Long: `Delete the objects of a pool that nothing can reach: no disk, checkpoint, fork, pin
or read-only attachment. A pool is a disk's URL without what begins at /disks/; all
of it is read, and so are the log stores of its disks that have one.

What is found unreachable is noted in the pool, and deleted by the first run that
finds it so again at least --grace later: run it from a timer. Without --yes nothing
is changed, and it tells what would be deleted. Disks may be in use meanwhile, and
runs may overlap. Anything that can't be read, or is of a newer release, stops it
before anything is deleted. No key of an encrypted disk is needed.
` + exitTable,
		Example: "  sluice disk collect s3://bucket/prefix\n  sluice disk collect s3://bucket/prefix --yes --json",
		Args:    exactly("the URL of a pool"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.validate(); err != nil {
				return err
			}
			out, err := d.collect(cmd.Context(), args[0], &f)
			if out.Report == nil {
				return err
			}
			if perr := d.result(out, func(w io.Writer) error {
				return printCollected(w,
					&out)
			}); err == nil {
				err = perr
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing, which is the default")
	cmd.Flags().BoolVar(&f.yes, "yes", false,
		"note what is unreachable, and delete what was noted a grace ago")
	cmd.Flags().DurationVar(&f.grace, "grace", gc.DefaultGrace,
		"time between two findings that an object is unreachable, at least 10m")
	return cmd
}

func (f *collectFlags) validate() error {
	switch {
	case f.dryRun && f.yes:
		return usageError("--dry-run changes nothing, and --yes does: give one of them")
	case f.grace < gc.MinGrace:
		return usageError(
			"a grace of %v: a checkpoint that is being made may take longer; use %v or more",
			f.grace, gc.MinGrace)
	}
	return nil
}

func (d *deps) collect(ctx context.Context, pool string, f *collectFlags) (collected, error) {
	out := collected{Pool: pool, Grace: f.grace}
	store, err := blobs.Open(ctx, pool)
	if err != nil {
		return out, err
	}
	store, _ = d.noticing(store, pool)
	defer store.Close()
	p := &phaseBar{d: d, ctx: ctx}
	defer p.end()
	out.Report, err = gc.Collect(ctx, store, gc.Options{Grace: f.grace, DryRun: !f.yes,
		Progress: p.set, OpenLog: openLog, Pool: blobs.Canonical(pool)})
	return out, err
}

// phaseBar is a bar for each phase of something, one after the other.
type phaseBar struct {
	d     *deps
	ctx   context.Context //nolint:containedctx // of the one command that it is for
	phase string
	bar   *diskBar
}

func (p *phaseBar) set(phase string, done, total int64) {
	if phase != p.phase {
		p.end()
		p.phase, p.bar = phase, p.d.newDiskBar(p.ctx, phase, countsObjects)
	}
	p.bar.set(done, total)
}

func (p *phaseBar) end() {
	if p.bar != nil {
		p.bar.end()
	}
}

func printCollected(w io.Writer, c *collected) error {
	freed := "Freed"
	if c.DryRun {
		freed = "To free"
	}
	marked := "none that is " + c.Grace.String() + " old"
	if c.Marked != nil {
		marked = timestamp(*c.Marked)
	}
	fields := [][2]string{
		{"Disks", fmt.Sprintf("%d, and %d destroyed of which something is left", c.Disks,
			c.Destroyed)},
		{"Holding", fmt.Sprintf("%d checkpoints, %d forks, %d pins; %d maps", c.Checkpoints,
			c.Forks, c.Pins, c.Maps)},
		{"Objects", tally(c.Objects)}}
	for _, why := range slices.Sorted(maps.Keys(c.Kept)) {
		fields = append(fields, [2]string{"  " + strings.ReplaceAll(why, "_", " "),
			tally(c.Kept[why])})
	}
	fields = append(fields, [2]string{"Earlier mark", marked},
		[2]string{freed, tally(c.Freed.Total())})
	for _, kind := range slices.Sorted(maps.Keys(c.Freed)) {
		fields = append(fields, [2]string{"  " + kind, tally(c.Freed[kind])})
	}
	fields = append(fields, [2]string{"Waiting", tally(c.Waiting.Total())})
	if c.Next != nil && !c.DryRun {
		fields = append(fields, [2]string{"  until", timestamp(*c.Next)})
	}
	fmt.Fprintf(w, "Pool: %s\n", c.Pool)
	if err := printFields(w, fields); err != nil {
		return err
	}
	for i := range c.Doubtful {
		printDoubt(w, &c.Doubtful[i])
	}
	if more := c.Doubts - len(c.Doubtful); more > 0 {
		fmt.Fprintf(w, "and %d more objects that make no sense\n", more)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	if c.DryRun {
		fmt.Fprintln(w,
			"Nothing was changed. With --yes, what is unreachable is noted, and deleted a grace later.")
	}
	return nil
}

// printDoubt says of an object that makes no sense what it keeps, and what can be done.
func printDoubt(w io.Writer, d *gc.Doubt) {
	holds := "nothing of " + d.Disk + ", and of what it descends from,"
	if d.HoldsAll {
		holds = "it can't be told what " + d.Disk + " descends from: nothing of the pool"
	}
	fmt.Fprintf(w, "doubtful: %s: %s\n  %s is collected while it is there\n  %s\n", d.Object,
		d.Why, holds, d.Remedy)
}

func tally(t gc.Tally) string {
	return fmt.Sprintf("%d objects, %s", t.Objects, byteCount(t.Bytes))
}
