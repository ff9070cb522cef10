package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestQueueHandsOutInOrder: the oldest first, or the least in byte order, whatever is added
// meanwhile; what is added again while it is out comes again.
func TestQueueHandsOutInOrder(t *testing.T) {
	for _, least := range []bool{false, true} {
		q, rnd := newQueue(), rand.New(rand.NewPCG(1, 1))
		var want, out []string
		for range 20_000 {
			name := fmt.Sprintf("m%d", rnd.IntN(300))
			switch {
			case rnd.IntN(2) == 0:
				q.add(name)
				if !slices.Contains(want, name) && !slices.Contains(out, name) {
					want = append(want, name)
				}
			case len(out) > 0 && rnd.IntN(2) == 0:
				name, out = out[0], out[1:]
				again := q.dirty[name]
				q.done(name)
				if again {
					want = append(want, name)
				}
			default:
				if least {
					slices.Sort(want)
				}
				got, ok := q.next(least)
				if ok != (len(want) > 0) || ok && got != want[0] {
					t.Fatalf("least %v: got %q, %v of %v", least, got, ok, want)
				}
				if ok {
					want, out = want[1:], append(out, got)
				}
			}
		}
	}
}
