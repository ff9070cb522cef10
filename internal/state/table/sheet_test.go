package table

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/state"
)

// TestSheetAgainstMap applies random batches to a sheet and to a map, and keeps old sheets to see that they
// don't change.
func TestSheetAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type kept struct {
		sheet sheet
		truth map[string]int64
	}
	var old []kept
	now, truth := newSheet(nil), map[string]int64{}
	for round := range 400 {
		var events []state.Event
		for range rng.IntN(40) {
			rev := int64(round)
			key := fmt.Sprintf("%d/%03d", rng.IntN(3), rng.IntN(400))
			gone := rng.IntN(3) == 0 || round > 300 && rng.IntN(8) > 0 // shrink at the end
			events = append(events, state.Event{KV: state.KV{Key: key, ModRevision: rev}, Deleted: gone})
			if gone {
				delete(truth, key)
			} else {
				truth[key] = rev
			}
		}
		now = now.with(events)
		if round%40 == 0 {
			old = append(old, kept{now, maps.Clone(truth)})
		}
		if round == 200 { // as a listing does
			now = newSheet(slices.Collect(now.scan("")))
		}
	}
	for i, k := range append(old, kept{now, truth}) {
		compare(t, fmt.Sprint("sheet ", i), k.sheet, k.truth)
	}
}

func compare(t *testing.T, name string, s sheet, truth map[string]int64) {
	t.Helper()
	if s.keys != len(truth) {
		t.Fatalf("%s counts %d keys, want %d", name, s.keys, len(truth))
	}
	for _, c := range s.chunks {
		if len(c) == 0 || len(c) > chunkMax {
			t.Fatalf("%s has a chunk of %d keys", name, len(c))
		}
	}
	for _, prefix := range []string{"", "0/", "1/", "1/2", "2/399", "3", "/"} {
		var want, got []string
		for _, key := range slices.Sorted(maps.Keys(truth)) {
			if strings.HasPrefix(key, prefix) {
				want = append(want, fmt.Sprint(key, "@", truth[key]))
			}
		}
		for kv := range s.scan(prefix) {
			got = append(got, fmt.Sprint(kv.Key, "@", kv.ModRevision))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s under %q:\n got %v\nwant %v", name, prefix, got, want)
		}
	}
	for i := range 400 {
		key := fmt.Sprintf("1/%03d", i)
		kv, ok := s.get(key)
		if rev, want := truth[key]; ok != want || ok && kv.ModRevision != rev {
			t.Fatalf("%s: get of %s is %+v, %t; want %d, %t", name, key, kv, ok, rev, want)
		}
	}
}
