package gc

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// DefaultGrace is the time between two marks. It must be longer than a listing can be old, and than
// a request can be on its way. No other safety hangs on it.
const DefaultGrace = 24 * time.Hour

// MinGrace is the shortest that makes sense beside writers: a checkpoint can take two stall
// timeouts.
const MinGrace = 10 * time.Minute

const (
	parallel = 16 // requests at a time
	attempts = 4  // of a mark, while what it reads changes under it
)

// Options says how to collect.
type Options struct {
	// Grace is the time between two marks; default DefaultGrace. Nothing here refuses one that is
	// shorter than MinGrace, for pools that nobody uses.
	Grace time.Duration
	// OpenLog opens the log stores of disks that have their log in a second one; nil: such a disk
	// stops the collector.
	OpenLog disk.OpenStore
	// Pool is the URL of the store: the logs of disks that were made elsewhere are left alone. See
	// disk.ElsewhereLog.
	Pool string
	// DryRun changes nothing, and tells what would be.
	DryRun bool
	// Progress tells how far a phase is: listing (objects; no total), reading, walking, deleting.
	// It may be nil.
	Progress func(phase string, done, total int64)
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// collector is one collection under way.
type collector struct {
	store  blob.Store
	opts   Options
	codec  *format.Codec
	report *Report
	past   []storedMark // from old to new
	base   *storedMark  // the newest that is old enough, or nil
}

// Collect makes a mark of the pool, and deletes what it and an earlier one found unreachable. It
// reads every head, checkpoint, reference, pin, map root, directory and segment table of the pool.
// It lists the pool three times, and the log stores of its disks once.
//
// Errors: NotFound (no disk in the store). Corrupt and Unsupported (something in the pool, which it
// names; nothing was deleted). Unavailable (nothing, or not all, was deleted; the next call does
// the rest). A report comes with any error that happened while deleting.
func Collect(ctx context.Context, store blob.Store, opts Options) (*Report, error) {
	if opts.Grace == 0 {
		opts.Grace = DefaultGrace
	}
	if opts.Grace < 0 {
		return nil, errs.New(errs.Invalid, "a grace of %v", opts.Grace).
			WithRemedy("use %v or more", MinGrace)
	}
	if opts.Now == nil {
		opts.Now = func() time.Time { return time.Now().UTC() }
	}
	if opts.Progress == nil {
		opts.Progress = func(string, int64, int64) {}
	}
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	c := &collector{store: decorate.Retry(decorate.Whole(store), decorate.DefaultRetry()),
		opts: opts, codec: codec, report: newReport(&opts)}
	if err := c.loadMarks(ctx); err != nil {
		return nil, stopped(err)
	}
	m, err := c.mark(ctx)
	if m != nil {
		defer m.closeLogs()
	}
	if err != nil {
		return nil, stopped(c.remember(ctx, m, err))
	}
	victims := c.judge(m)
	if opts.DryRun {
		return c.report, nil
	}
	if err := c.register(ctx, m); err != nil {
		return nil, stopped(err)
	}
	if err := c.sweep(ctx, m, victims); err != nil {
		return c.report, err
	}
	return c.report, c.storeMark(ctx, m)
}

// stopped says of an error that nothing was deleted.
func stopped(err error) error {
	e := errs.Wrap(errs.KindOf(err), err, "the collection stopped, and nothing was deleted")
	if errs.RemedyOf(err) == "" && (errs.Is(err, errs.Corrupt) || errs.Is(err, errs.NotFound)) {
		return e.WithRemedy("look at it with sluice disk fsck; what can't be repaired must be " +
			"removed (disk checkpoint rm, disk destroy)")
	}
	return e
}

// mark makes a mark. Another collector, or writers, may change what it reads: then it begins anew.
func (c *collector) mark(ctx context.Context) (*mark, error) {
	for try := 1; ; try++ {
		m, err := c.tryMark(ctx)
		if !errs.Is(err, errs.NotFound) || (m != nil && m.empty()) {
			return m, err
		}
		m.closeLogs()
		if try == attempts {
			return m, errs.Wrap(errs.Corrupt, err, "something is missing")
		}
	}
}
