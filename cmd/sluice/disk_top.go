package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// clearScreen moves a terminal's cursor home and clears what is below.
const clearScreen = "\x1b[H\x1b[J"

func newDiskTopCommand(d *deps) *cobra.Command {
	var once bool
	var every time.Duration
	var machines []string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch what the disks attached on this host do, or machines' disks",
		Long: `Watch what the disks that are attached for writing on this host do, by the second:
requests and bytes of who uses them, flushes with the time they took and what they
waited for in it, requests to the store, and what waits to be written there. With --machine it is the disks of
those machines, wherever they run. Times are upper bounds, to a factor of two. On a
terminal it goes on until it is interrupted; else, and with --once, it looks once.
` + exitTable,
		Example: `  sluice disk top
  sluice disk top --machine web-1 --machine web-2
  sluice disk top --once --json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond || every > time.Hour {
				return usageError("--every is between 100ms and 1h")
			}
			source, err := d.topSource(machines)
			if err != nil {
				return err
			}
			return d.top(cmd.Context(), source, every, once || d.json || terminal(d.stdout) == nil)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "look once, over one interval")
	cmd.Flags().DurationVar(&every, "every", time.Second, "the interval")
	cmd.Flags().StringArrayVar(&machines, "machine", nil,
		"a machine whose disk to watch; repeat it")
	return cmd
}

// topRow is what one attachment did in an interval. Rates are per second.
type topRow struct {
	URL        string          `json:"url"`
	Machine    string          `json:"machine,omitempty"`
	PID        int             `json:"pid,omitempty"`  // of an attachment on this host
	Mode       attachment.Mode `json:"mode,omitempty"` // likewise
	Reads      float64         `json:"reads"`
	Writes     float64         `json:"writes"`
	ReadBytes  float64         `json:"read_bytes"`
	WriteBytes float64         `json:"write_bytes"`
	Flushes    float64         `json:"flushes"`
	// upper bounds, to a factor of two; 0: there was none
	FlushP50MS float64 `json:"flush_p50_ms"`
	FlushP99MS float64 `json:"flush_p99_ms"`
	// what flushes that ended in the interval waited for, the longest first
	FlushWaits   []flushWait `json:"flush_waits,omitempty"`
	StoreGets    float64     `json:"store_gets"`
	StorePuts    float64     `json:"store_puts"`
	StoreRetries float64     `json:"store_retries"`
	// objects that the store acknowledged and did not have, since it was attached; they were
	// written again
	StoreLost  uint64 `json:"store_lost"`
	DirtyBytes int64  `json:"dirty_bytes"`
	// of frames, in memory and in the cache; 0 also when none was read
	CacheHitRatio float64 `json:"cache_hit_ratio"`
	// ok, retrying (the store fails requests), stalled (it does nothing), silent (the process
	// doesn't answer)
	State string      `json:"state"`
	Stall *disk.Stall `json:"stall,omitempty"` // in state stalled
}

// reading is what an attachment said at one moment.
type reading struct {
	at    time.Time
	stats disk.Stats
	ok    bool
}

// attached is an attachment as it is looked at: a row that has its names, and what it says now.
type attached struct {
	key string // the same at each look
	row topRow
	now reading
}

// topSource returns what looks at the attachments of this host, or of machines.
func (d *deps) topSource(machines []string) (func(ctx context.Context) ([]attached, error), error) {
	if len(machines) == 0 {
		return d.lookHere, nil
	}
	c, err := d.client()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]attached,
		error) {
		return lookAtMachines(ctx, c, machines)
	}, nil
}

// topTimeout is how long one attachment has to say what it does, before it is called silent.
const topTimeout = time.Second

// lookHere asks the processes that have disks attached on this host.
func (d *deps) lookHere(ctx context.Context) ([]attached, error) {
	live, _, err := d.registry().List()
	if err != nil {
		return nil, err
	}
	var all []attached
	for i := range live {
		r := &live[i]
		if r.Control == "" {
			continue
		}
		a := attached{key: r.Control, row: topRow{URL: r.URL, PID: r.PID, Mode: r.Mode}}
		sctx, cancel := context.WithTimeout(ctx, topTimeout)
		a.now.stats, err = host.Client(r).Stats(sctx)
		cancel()
		a.now.at, a.now.ok = time.Now(), err == nil
		all = append(all, a)
	}
	return all, nil
}

// lookAtMachines asks the platforms of machines. One that runs nowhere is silent.
func lookAtMachines(ctx context.Context, c *client.Client, names []string) ([]attached, error) {
	var all []attached
	for _, name := range names {
		m, err := c.Machine(ctx, name)
		if err != nil {
			return nil, err
		}
		a := attached{key: m.ID + " " + m.InstanceID, row: topRow{URL: m.DiskURL, Machine: m.Name}}
		sctx, cancel := context.WithTimeout(ctx, topTimeout)
		s, err := c.MachineDiskStats(sctx, m.ID)
		cancel()
		a.now = reading{at: time.Now(), stats: statsOfMachine(s), ok: err == nil}
		all = append(all, a)
	}
	return all, nil
}

// statsOfMachine returns the engine's form of what the API says of a disk.
func statsOfMachine(s api.DiskStats) disk.Stats {
	out := disk.Stats{
		Reads: s.Reads, Writes: s.Writes, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes,
		Flushes: s.Flushes,
		Gets:    s.Gets, Puts: s.Puts, HeadSwaps: s.HeadSwaps, Retries: s.Retries,
		Throttled: s.Throttled,
		Lost:      s.LostObjects, FrameHits: s.FrameHits, FrameMisses: s.FrameMisses,
		DirtyBytes: s.DirtyBytes,
	}
	copy(out.FlushTimes[:], s.FlushTimes)
	out.FlushTime, out.FlushWaits = time.Duration(s.FlushTimeNS), map[disk.Wait]disk.Waited{}
	for name, w := range s.FlushWaits {
		waited := disk.Waited{Sum: time.Duration(w.SumNS)}
		copy(waited.Times[:], w.Times)
		out.FlushWaits[disk.Wait(name)] = waited
	}
	if x := s.Stall; x != nil {
		out.Stall = &disk.Stall{Since: x.Since, Operation: x.Operation, Kind: errs.Kind(x.Kind),
			Reason: x.Reason,
			Remedy: x.Remedy, HeldSince: x.HeldSince}
	}
	return out
}

func (d *deps) top(ctx context.Context, look func(context.Context) ([]attached, error),
	every time.Duration, once bool) error {
	before := map[string]reading{}
	if _, err := readTop(ctx, look, before); err != nil {
		return err
	}
	for {
		if backoff.Sleep(ctx, every) != nil {
			return nil
		}
		rows, err := readTop(ctx, look, before)
		if err != nil {
			return err
		}
		if once {
			return d.result(rows, func(w io.Writer) error { return printTop(w, rows) })
		}
		fmt.Fprint(d.stdout, clearScreen)
		if err := printTop(d.stdout, rows); err != nil {
			return err
		}
	}
}

// readTop asks all attachments, and compares with what they said before, which it replaces.
func readTop(ctx context.Context, look func(context.Context) ([]attached, error),
	before map[string]reading) ([]topRow, error) {
	all, err := look(ctx)
	if err != nil {
		return nil, err
	}
	rows := []topRow{}
	for _, a := range all {
		rows = append(rows, compareTop(a.row, before[a.key], a.now))
		before[a.key] = a.now
	}
	return rows, nil
}

// compareTop fills in a row by two readings.
func compareTop(row topRow, a, b reading) topRow {
	row.State, row.DirtyBytes, row.StoreLost = "ok", b.stats.DirtyBytes, b.stats.Lost
	switch {
	case !b.ok:
		row.State = "silent"
		return row
	case !a.ok: // it is new
		row.setStall(&b.stats)
		return row
	}
	seconds := b.at.Sub(a.at).Seconds()
	rate := func(from, to uint64) float64 { return float64(to-from) / seconds }
	x, y := &a.stats, &b.stats
	row.Reads, row.Writes = rate(x.Reads, y.Reads), rate(x.Writes, y.Writes)
	row.ReadBytes, row.WriteBytes = rate(x.ReadBytes, y.ReadBytes), rate(x.WriteBytes, y.WriteBytes)
	row.Flushes, row.StoreGets = rate(x.Flushes, y.Flushes), rate(x.Gets, y.Gets)
	row.StorePuts, row.StoreRetries = rate(x.Puts+x.HeadSwaps, y.Puts+y.HeadSwaps),
		rate(x.Retries, y.Retries)
	times := y.FlushTimes.Since(x.FlushTimes)
	row.FlushP50MS = times.Quantile(0.5).Seconds() * 1000
	row.FlushP99MS = times.Quantile(0.99).Seconds() * 1000
	row.FlushWaits = flushWaits(x, y)
	if hits, misses := y.FrameHits-x.FrameHits, y.FrameMisses-x.FrameMisses; hits+misses > 0 {
		row.CacheHitRatio = float64(hits) / float64(hits+misses)
	}
	if row.StoreRetries > 0 {
		row.State = "retrying"
	}
	row.setStall(y)
	return row
}

func (r *topRow) setStall(s *disk.Stats) {
	if s.Stall != nil {
		r.State, r.Stall = "stalled", s.Stall
	}
}

// name is what people call the disk: its machine, or the end of its URL.
func (r *topRow) name() string { return cmp.Or(r.Machine, host.Name(r.URL)) }

// process is the process on this host that has the disk.
func (r *topRow) process() string {
	if r.PID == 0 {
		return "-"
	}
	return strconv.Itoa(r.PID)
}

func printTop(w io.Writer, rows []topRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "no disk is attached for writing on this host")
		return err
	}
	table := make([][]string, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		table = append(table, []string{r.name(), r.process(), orDash(string(r.Mode)),
			perSecond(r.Reads), perSecond(r.Writes),
			byteCount(int64(r.ReadBytes)), byteCount(int64(r.WriteBytes)), perSecond(r.Flushes),
			fmt.Sprintf("%.1f", r.FlushP50MS), fmt.Sprintf("%.1f", r.FlushP99MS),
			perSecond(r.StoreGets), perSecond(r.StorePuts),
			byteCount(r.DirtyBytes), fmt.Sprintf("%.0f%%", 100*r.CacheHitRatio), r.State})
	}
	err := printTable(w, []string{"DISK", "PID", "MODE", "R/S", "W/S", "READ/S", "WRITE/S",
		"FLUSH/S", "P50MS", "P99MS", "GET/S", "PUT/S", "DIRTY", "HITS", "STATE"}, table)
	for i := range rows {
		if r := &rows[i]; len(r.FlushWaits) > 0 && err == nil {
			err = printFlushWaits(w, r)
		}
		if r := &rows[i]; r.Stall != nil && err == nil {
			err = printStall(w, r.name(), r.Stall)
		}
		if r := &rows[i]; r.StoreLost > 0 && err == nil {
			_,
				err = fmt.Fprintf(w,
				"%s: the store did not have %d objects that it had acknowledged; they were written again. Don't trust it.\n",
				r.name(), r.StoreLost)
		}
	}
	return err
}

func perSecond(x float64) string { return fmt.Sprintf("%.0f", x) }
