package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

// Options choose what a run is like.
type Options struct {
	Seed uint64
	// Calm runs have slow and lost messages and dying servers, but no worker is ever silent long
	// enough to be given up: then no two VMs of a machine may ever have its disk at once.
	Calm bool
	// Faults lasts as long as faults do; then everything is repaired and has Settle to come true.
	Faults, Settle time.Duration
	// Break is a bug to build in, to see that the simulation finds it.
	Break Bug
}

// Bug is something that a run does wrong on purpose.
type Bug string

// Bugs.
const (
	BugNone      Bug = ""
	BugNoLock    Bug = "no-lock"    // moves don't heed their network's lock
	BugNoCompare Bug = "no-compare" // transactions don't compare what they rely on
	BugLoseWrite Bug = "lose-write" // a commit is said to have happened, and hasn't
	BugNoFence   Bug = "no-fence"   // the storage takes writes of any epoch
	BugNoMarks   Bug = "no-marks"   // workers don't say how far a start has come
)

// world is one run.
type world struct {
	opt     Options
	rng     *rand.Rand
	now     time.Time
	end     time.Time // of the faults
	events  eventHeap
	seq     int
	healed  bool
	store   *memstate.Store
	shadow  *shadow
	disks   *disks
	servers []*server // the last is the newest; workers talk to it
	workers []*worker
	names   int
	trail   []string // newest lines of what happened, for a failure
	ids     int
	broken  error // the first invariant that did not hold
	commits int
	foreign bool      // another server than the newest has committed something
	looked  time.Time // when it was last asked whether all is settled
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// after has something done at a later time.
func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{at: w.now.Add(d), seq: w.seq, do: do})
}

// between draws a duration.
func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

// chance is true in so many of a thousand cases, and never once the faults have stopped.
func (w *world) chance(perMille int) bool {
	hit := w.rng.IntN(1000) < perMille
	return hit && !w.healed
}

func (w *world) logf(format string, args ...any) {
	w.trail = append(w.trail, fmt.Sprintf("%8.3f ",
		w.now.Sub(start).Seconds())+fmt.Sprintf(format, args...))
	if len(w.trail) > 4000 {
		w.trail = w.trail[2000:]
	}
}

// violated notes the first invariant that did not hold; the run ends there.
func (w *world) violated(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
		w.logf("VIOLATED: %v", w.broken)
	}
}

// Machine and ULID make the identities of a run reproducible.
func (w *world) Machine(cell string) fleet.MachineID {
	w.ids++
	return fleet.MachineID(fmt.Sprintf("%s%012x", cell, w.ids))
}

func (w *world) ULID(now time.Time) string {
	w.ids++
	return fmt.Sprintf("%010d-%06d", now.Sub(start).Milliseconds(), w.ids)
}

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// Run plays one run and returns what it counted, and the first violation with the way to it.
func Run(opt Options) (Tally, error) {
	w := &world{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x51c1ce)), now: start,
		end: start.Add(opt.Faults)}
	w.store = memstate.New(memstate.Config{})
	w.disks = newDisks(w)
	w.shadow = newShadow(w)
	w.setUp()
	last := w.end.Add(opt.Settle)
	for w.events.Len() > 0 && w.broken == nil {
		e := heap.Pop(&w.events).(event)
		if e.at.After(w.end) && !w.healed {
			w.heal()
		}
		if e.at.After(last) {
			break
		}
		w.now = e.at
		e.do()
		if w.mayBeSettled() && w.settled() == nil {
			break
		}
	}
	if w.broken == nil {
		w.now = last
		w.broken = w.settled()
	}
	w.close()
	if w.broken != nil {
		return Tally{}, fmt.Errorf("seed %d (calm %v): %w\n%s", opt.Seed, opt.Calm, w.broken,
			strings.Join(w.trail[max(0, len(w.trail)-trailLines):], "\n"))
	}
	return w.tally(), nil
}

const trailLines = 400

// mayBeSettled asks for a look at everything, once in a virtual second, when the faults are over.
func (w *world) mayBeSettled() bool {
	if !w.healed || w.now.Sub(w.looked) < time.Second || w.now.Sub(w.end) < 5*time.Second {
		return false
	}
	w.looked = w.now
	return true
}
