//go:build bench

package bench

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/test/otlptest"
)

// breakdown prints of what pauses consisted: for each part of them the median of when it began
// after the pause did, and of how long it took, and then how much of the pause the parts explain.
// Steps of the server say only what was waited for; they are not counted as explanations.
func breakdown(moves map[string]otlptest.Trace) {
	began, took := map[string][]time.Duration{}, map[string][]time.Duration{}
	var shares []time.Duration // in a thousand, as durations: for percentile
	for _, trace := range moves {
		pause := trace.Find("server", "pause")
		if len(pause) != 1 {
			continue
		}
		for _, s := range trace {
			if s.End.Before(pause[0].Start) || s.Start.After(pause[0].End) || s.Name == "move" {
				continue
			}
			what := s.Part + " " + s.Name
			if above, ok := trace.Parent(s); ok && s.Part == "store" {
				what += " of " + above.Name
			}
			began[what] = append(began[what], s.Start.Sub(pause[0].Start))
			took[what] = append(took[what], s.Took())
		}
		covered := trace.Covered(pause[0], func(s otlptest.Span) bool { return s.Part != "server" })
		shares = append(shares, 1000*covered/max(pause[0].Took(), 1))
	}
	if len(shares) == 0 {
		fmt.Println("RESULT no pause was traced")
		return
	}
	var parts []string
	for what := range took {
		parts = append(parts, what)
	}
	slices.SortFunc(parts, func(a, b string) int {
		return cmp.Or(cmp.Compare(percentile(began[a], 50), percentile(began[b], 50)),
			cmp.Compare(a, b))
	})
	fmt.Printf("RESULT a pause consists of (p50 of when it began, p50 and p99 of what it took):\n")
	for _, what := range parts {
		fmt.Printf("RESULT %10s %10s %10s  %s, n=%d\n", tenths(percentile(began[what], 50)),
			tenths(percentile(took[what], 50)), tenths(percentile(took[what], 99)), what,
			len(took[what]))
	}
	fmt.Printf("RESULT of a pause its parts explain: p50 %.1f %%, worst %.1f %%, n=%d\n",
		float64(percentile(shares, 50))/10, float64(slices.Min(shares))/10, len(shares))
}

func tenths(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
