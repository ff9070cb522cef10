package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
)

// flushWait is what flushes of an interval waited for one thing.
type flushWait struct {
	Wait  disk.Wait `json:"wait"`
	Share float64   `json:"share"` // of what they waited in all
	// of one flush in a hundred, at least; an upper bound, to a factor of two
	P99MS float64 `json:"p99_ms"`
}

// flushWaits compares two readings. Nothing: no flush between them has ended, or had to wait.
func flushWaits(a, b *disk.Stats) []flushWait {
	var all []flushWait
	var sum time.Duration
	for _, name := range disk.Waits() {
		sum += b.FlushWaits[name].Sum - a.FlushWaits[name].Sum
	}
	for _, name := range disk.Waits() {
		x, y := a.FlushWaits[name], b.FlushWaits[name]
		if took := y.Sum - x.Sum; took > 0 {
			all = append(all, flushWait{Wait: name, Share: took.Seconds() / sum.Seconds(),
				P99MS: y.Times.Since(x.Times).Quantile(0.99).Seconds() * 1000})
		}
	}
	slices.SortStableFunc(all, func(a, b flushWait) int { return cmp.Compare(b.Share, a.Share) })
	return all
}

// shownShare is the least share of all waits that people are told of.
const shownShare = 0.01

// printFlushWaits says in a line where a disk's flushes waited.
func printFlushWaits(w io.Writer, r *topRow) error {
	var parts []string
	for _, x := range r.FlushWaits {
		if x.Share >= shownShare {
			parts = append(parts,
				fmt.Sprintf("%s %.0f%% (p99 %.1f ms)", x.Wait, 100*x.Share, x.P99MS))
		}
	}
	_, err := fmt.Fprintf(w, "%s: flushes wait for %s\n", r.name(), strings.Join(parts, ", "))
	return err
}
