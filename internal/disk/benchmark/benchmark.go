package benchmark

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// MinSize is the least content that a run writes in sequence, in bytes.
	MinSize = 16 << 20
	// MaxDuration is the longest that one step without a fixed amount may take.
	MaxDuration = 10 * time.Minute

	holder      = "benchmark"
	cleanupWait = time.Minute
)

// Config says what to measure.
type Config struct {
	Store blob.Store
	// Path is where the disk is made; there must be none.
	Path string
	// LogURL is where the disk's log is, if in a second store, which OpenLog opens.
	LogURL  string
	OpenLog disk.OpenStore
	// Size is the content that is written and read in sequence, in bytes: a multiple of 1 MiB, at
	// least MinSize.
	Size int64
	// Duration is how long each step takes that has no fixed amount, up to MaxDuration.
	Duration time.Duration
	// Cache is what warm reads come from beside memory, or nil.
	Cache *cache.Cache
	// Step is told of each step that begins, and how many there are; may be nil.
	Step func(name string, n, of int)
}

func (c *Config) validate() error {
	switch {
	case c.Size < MinSize || c.Size%chunk != 0 || c.Size > disk.MaxSize/2:
		return errs.New(errs.Invalid, "a benchmark of %d bytes", c.Size).
			WithRemedy("use whole MiB, at least %d", MinSize>>20)
	case c.Duration <= 0 || c.Duration > MaxDuration:
		return errs.New(errs.Invalid, "steps of %v", c.Duration).
			WithRemedy("use up to %v", MaxDuration)
	}
	return nil
}

// Result is what one step has measured.
type Result struct {
	Name string `json:"name"`
	Ops  int    `json:"ops"`
	// Of one operation, in milliseconds.
	P50MS float64 `json:"p50_ms"`
	P99MS float64 `json:"p99_ms"`
	// Of all together.
	OpsPerSec   float64 `json:"ops_per_s"`
	BytesPerSec float64 `json:"bytes_per_s"`
	// Against names the store's own step beside which a disk's is to be seen, and Ratio is what the
	// disk reaches of it: of its rate, or its median time over the store's.
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
}

// run is one measurement under way.
type run struct {
	Config
	disk    *disk.Disk
	gen     uint64
	puts    map[int]int // objects that were put, by their size
	results []Result
}

type step struct {
	name    string
	against string // a step before it
	byRate  bool   // the ratio is of rates, else of median times
	do      func(ctx context.Context, r *run) (sample, error)
}

// Run measures all steps in turn. The results of those that ended are returned beside an error too.
func Run(ctx context.Context, cfg Config) (_ []Result, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if _, err := disk.Create(ctx, cfg.Store, cfg.Path, disk.CreateOptions{Size: 2 * cfg.Size,
		LogURL: cfg.LogURL, OpenLog: cfg.OpenLog}); err != nil {
		return nil, err
	}
	r := &run{Config: cfg, puts: map[int]int{}}
	defer func() { err = errors.Join(err, r.cleanUp(ctx)) }()
	for i, s := range steps {
		if cfg.Step != nil {
			cfg.Step(s.name, i+1, len(steps))
		}
		x, err := s.do(ctx, r)
		if err != nil {
			return r.results, fmt.Errorf("%s: %w", s.name, err)
		}
		r.results = append(r.results, r.result(s, x))
	}
	return r.results, nil
}

func (r *run) result(s step, x sample) Result {
	out := x.result(s.name)
	for _, base := range r.results {
		switch {
		case base.Name != s.against:
		case s.byRate && base.BytesPerSec > 0:
			out.Against, out.Ratio = s.against, out.BytesPerSec/base.BytesPerSec
		case !s.byRate && base.P50MS > 0:
			out.Against, out.Ratio = s.against, out.P50MS/base.P50MS
		}
	}
	return out
}

// attach attaches the disk anew, so that nothing of it is in memory.
func (r *run) attach(ctx context.Context, c *cache.Cache) error {
	if r.disk != nil {
		if err := r.disk.Close(ctx); err != nil {
			return err
		}
		r.disk = nil
	}
	r.gen++
	d, err := disk.Attach(ctx, r.Store, r.Path,
		disk.AttachOptions{Generation: r.gen, Holder: holder, Cache: c, OpenLog: r.OpenLog,
			Tuning: disk.Tuning{BootWindow: -1}})
	if err != nil {
		return err
	}
	r.disk = d
	return nil
}

// cleanUp removes the disk and the objects beside it.
func (r *run) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
	defer cancel()
	if r.disk != nil {
		r.disk.Abandon()
	}
	err := disk.Destroy(ctx, r.Store, r.Path, disk.DestroyOptions{OpenLog: r.OpenLog})
	var left []string
	err = errors.Join(err, r.Store.List(ctx, r.objectPrefix(), "", func(e blob.Entry) bool {
		left = append(left, e.Key)
		return true
	}))
	for _, key := range left {
		err = errors.Join(err, r.Store.Delete(ctx, key))
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "remove the benchmark's disk %s", r.Path).
			WithRemedy("remove it: sluice disk destroy")
	}
	return nil
}
