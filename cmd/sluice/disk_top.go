package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
)

// clearScreen moves a terminal's cursor home and clears what is below.
const clearScreen = "\x1b[H\x1b[J"

func newDiskTopCommand(d *deps) *cobra.Command {
	var once bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch what the disks attached on this host do",
		Long: `Watch what the disks that are attached for writing on this host do, by the second: requests and bytes of who uses
them, flushes with the time they took, requests to the store, and what waits to be written there. Times are upper bounds,
to a factor of two. On a terminal it goes on until it is interrupted; else, and with --once, it looks once.
` + exitTable,
		Example: "  sluice disk top\n  sluice disk top --once --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond || every > time.Hour {
				return usageError("--every is between 100ms and 1h")
			}
			return d.top(cmd.Context(), every, once || d.json || terminal(d.stdout) == nil)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "look once, over one interval")
	cmd.Flags().DurationVar(&every, "every", time.Second, "the interval")
	return cmd
}

// topRow is what one attachment did in an interval. Rates are per second.
type topRow struct {
	URL           string          `json:"url"`
	PID           int             `json:"pid"`
	Mode          attachment.Mode `json:"mode"`
	Reads         float64         `json:"reads"`
	Writes        float64         `json:"writes"`
	ReadBytes     float64         `json:"read_bytes"`
	WriteBytes    float64         `json:"write_bytes"`
	Flushes       float64         `json:"flushes"`
	FlushP50MS    float64         `json:"flush_p50_ms"` // upper bounds, to a factor of two; 0: there was none
	FlushP99MS    float64         `json:"flush_p99_ms"`
	StoreGets     float64         `json:"store_gets"`
	StorePuts     float64         `json:"store_puts"`
	StoreRetries  float64         `json:"store_retries"`
	StoreLost     uint64          `json:"store_lost"` // objects that the store acknowledged and did not have, since it was attached; they were written again
	DirtyBytes    int64           `json:"dirty_bytes"`
	CacheHitRatio float64         `json:"cache_hit_ratio"` // of frames, in memory and in the cache; 0 also when none was read
	State         string          `json:"state"`           // ok, retrying (the store fails requests), stalled (it does nothing), silent (the process doesn't answer)
	Stall         *disk.Stall     `json:"stall,omitempty"` // in state stalled
}

// reading is what an attachment said at one moment.
type reading struct {
	at    time.Time
	stats disk.Stats
	ok    bool
}

func (d *deps) top(ctx context.Context, every time.Duration, once bool) error {
	before := map[string]reading{}
	if _, err := d.readTop(ctx, before); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
		rows, err := d.readTop(ctx, before)
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
func (d *deps) readTop(ctx context.Context, before map[string]reading) ([]topRow, error) {
	live, _, err := d.registry().List()
	if err != nil {
		return nil, err
	}
	rows := []topRow{}
	for i := range live {
		r := &live[i]
		if r.Control == "" {
			continue
		}
		now := reading{}
		sctx, cancel := context.WithTimeout(ctx, time.Second)
		err := askAttached(sctx, r, "/stats", &now.stats)
		cancel()
		now.at, now.ok = time.Now(), err == nil
		rows = append(rows, compareTop(r, before[r.Control], now))
		before[r.Control] = now
	}
	return rows, nil
}

func compareTop(r *attachment.Record, a, b reading) topRow {
	row := topRow{URL: r.URL, PID: r.PID, Mode: r.Mode, State: "ok", DirtyBytes: b.stats.DirtyBytes, StoreLost: b.stats.Lost}
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
	row.StorePuts, row.StoreRetries = rate(x.Puts+x.HeadSwaps, y.Puts+y.HeadSwaps), rate(x.Retries, y.Retries)
	times := y.FlushTimes.Since(x.FlushTimes)
	row.FlushP50MS = times.Quantile(0.5).Seconds() * 1000
	row.FlushP99MS = times.Quantile(0.99).Seconds() * 1000
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

func printTop(w io.Writer, rows []topRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "no disk is attached for writing on this host")
		return err
	}
	table := make([][]string, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		table = append(table, []string{lastPart(r.URL), fmt.Sprint(r.PID), string(r.Mode), perSecond(r.Reads), perSecond(r.Writes),
			byteCount(int64(r.ReadBytes)), byteCount(int64(r.WriteBytes)), perSecond(r.Flushes),
			fmt.Sprintf("%.1f", r.FlushP50MS), fmt.Sprintf("%.1f", r.FlushP99MS), perSecond(r.StoreGets), perSecond(r.StorePuts),
			byteCount(r.DirtyBytes), fmt.Sprintf("%.0f%%", 100*r.CacheHitRatio), r.State})
	}
	err := printTable(w, []string{"DISK", "PID", "MODE", "R/S", "W/S", "READ/S", "WRITE/S", "FLUSH/S", "P50MS", "P99MS", "GET/S", "PUT/S", "DIRTY", "HITS", "STATE"}, table)
	for i := range rows {
		if r := &rows[i]; r.Stall != nil && err == nil {
			err = printStall(w, lastPart(r.URL), r.Stall)
		}
		if r := &rows[i]; r.StoreLost > 0 && err == nil {
			_, err = fmt.Fprintf(w, "%s: the store did not have %d objects that it had acknowledged; they were written again. Don't trust it.\n",
				lastPart(r.URL), r.StoreLost)
		}
	}
	return err
}

func perSecond(x float64) string { return fmt.Sprintf("%.0f", x) }
