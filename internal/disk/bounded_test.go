package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	testBound   = 400 * time.Millisecond
	testJournal = 128 << 10
	testBlocks  = 48
)

// host is one host's life: what reaches the store and the journal's device, until it dies at one
// operation.
type host struct {
	death  *journaltest.Death
	client *simClient
	file   *journaltest.File
}

func newHost(s *sim, content []byte, at int, after bool) *host {
	h := &host{death: &journaltest.Death{At: at, After: after}, client: s.client()}
	h.file = journaltest.New(content, h.death)
	h.client.judge = func(int, string, string) verdict {
		switch h.death.Tick() {
		case journaltest.Before:
			return dieBefore
		case journaltest.After:
			return dieAfter
		}
		return pass
	}
	return h
}

func (h *host) attach(ctx context.Context, gen uint64) (*disk.Disk, *journal.Journal, error) {
	j, err := journal.New(h.file, journal.Options{Size: testJournal})
	if err != nil {
		return nil, nil, err
	}
	opts := disk.AttachOptions{Generation: gen, Holder: fmt.Sprint("vm-", gen), Journal: j}
	opts.ObjectBytes, opts.CheckpointObjects, opts.InFlight = 16<<10, 3, 4
	opts.StallTimeout, opts.Revalidate = 3*time.Second, -1
	d, err := disk.Attach(ctx, h.client, path, opts)
	return d, j, err
}

// timedOracle also knows when each write was made, and when a flush that covered it was
// acknowledged.
type timedOracle struct {
	oracle
	sure    int // writes that no loss of a journal may take
	made    []time.Time
	ackedAt []time.Time // of the newest flush that covered write i
}

// run works until the host dies or the work is done; then it closes the disk if it may.
func (o *timedOracle) run(ctx context.Context, h *host, gen, seed uint64, steps int,
	closes bool) error {
	d, _, err := h.attach(ctx, gen)
	if err != nil {
		return err
	}
	defer d.Abandon()
	rng := rand.New(rand.NewPCG(seed, 98))
	for range steps {
		if rng.IntN(25) == 0 {
			if err := o.changeMode(ctx, rng, d); err != nil {
				return err
			}
			if d.Head().BoundMS == 0 && rng.IntN(3) == 0 {
				return nil // it dies at once: what the store lacks then, lacks
			}
		}
		n, acked := len(o.writes), o.acked
		err := o.step(ctx, rng, d)
		for range len(o.writes) - n {
			o.made = append(o.made, time.Now())
			o.ackedAt = append(o.ackedAt, time.Time{})
		}
		for i := acked; i < o.acked; i++ {
			o.ackedAt[i] = time.Now()
		}
		if h := d.Head(); h.BoundMS == 0 {
			o.sure = o.acked
		}
		if err != nil {
			return err
		}
		if rng.IntN(5) == 0 {
			time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
		}
	}
	if !closes {
		return nil
	}
	n := len(o.writes)
	if err := d.Close(ctx); err != nil {
		return err
	}
	o.acked, o.sure = n, n
	for i := range o.ackedAt {
		o.ackedAt[i] = time.Now()
	}
	return nil
}

// changeMode changes how the disk acknowledges flushes while writes are under way.
func (o *timedOracle) changeMode(ctx context.Context, rng *rand.Rand, d *disk.Disk) error {
	bound := []time.Duration{0, testBound / 2, testBound}[rng.IntN(3)]
	acked := o.acked
	if err := d.SetBound(ctx, bound, nil); err != nil {
		return err
	}
	if h := d.Head(); h.BoundMS != bound.Milliseconds() {
		return fmt.Errorf("mode %s with %d ms, want %v", h.Mode, h.BoundMS, bound)
	}
	if bound == 0 {
		o.sure = acked
	}
	return nil
}

// check asks whether the content is a prefix: of all that was acknowledged if the journal was kept,
// else one that lacks no more than the bound of it.
func (o *timedOracle) check(ctx context.Context, d disk.Device, kept bool) error {
	acked := o.acked
	if !kept {
		o.acked = 0
	}
	n, err := o.prefix(ctx, d)
	if err != nil {
		return err
	}
	if n < o.sure {
		return fmt.Errorf("%d writes are there of %d that the store had acknowledged", n, o.sure)
	}
	if n < acked {
		if window := o.ackedAt[acked-1].Sub(o.made[n]); window > testBound {
			return fmt.Errorf("%d of %d acknowledged writes are lost, over %v", acked-n,
				acked, window)
		}
	}
	o.reset(n)
	o.sure = n
	o.made, o.ackedAt = o.made[:n], o.ackedAt[:n]
	return nil
}

// boundedLife cuts a session of a bounded disk at one operation of its store or journal, damages
// the journal or not, cuts recoveries of it, and asks the oracle; several sessions share one
// journal, so that it laps.
func boundedLife(ctx context.Context, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 5))
	s := newSim()
	if _, err := disk.Create(ctx, s.client(), path,
		disk.CreateOptions{Size: testBlocks * 4096, Bound: testBound}); err != nil {
		return err
	}
	content := make([]byte, testJournal)
	o := &timedOracle{oracle: oracle{blocks: testBlocks}}
	gen := uint64(0)
	for session := range 4 {
		gen++
		h := newHost(s, content, 1+rng.IntN(220), rng.IntN(2) == 0)
		h.client.latency = time.Duration(rng.IntN(150)) * time.Millisecond
		err := o.run(ctx, h, gen, seed*10+uint64(session), 120, rng.IntN(4) == 0)
		if err != nil && !errs.Is(err, errs.Unavailable) && !h.death.Dead() {
			return fmt.Errorf("session %d: %w", session, err)
		}
		kept := true
		damage := func() {
			content = h.file.Crash(rng)
			switch rng.IntN(8) {
			case 0:
				content, kept = make([]byte, testJournal), false
			case 1, 2:
				content[rng.IntN(len(content))] ^= 1 << rng.IntN(8)
				kept = false
			}
		}
		damage()
		if rng.IntN(6) == 0 { // another host has it for a while
			gen++
			other := s.client()
			d, err := disk.Attach(ctx, other, path,
				disk.AttachOptions{Generation: gen, Holder: fmt.Sprint("vm-", gen)})
			if err != nil {
				return err
			}
			if err := o.check(ctx, d, false); err != nil {
				return fmt.Errorf("session %d: elsewhere: %w", session, err)
			}
			for range 10 {
				if err := o.step(ctx, rng, d); err != nil {
					return err
				}
			}
			if err := d.Flush(ctx); err != nil {
				return err
			}
			d.Abandon()
			o.acked, o.sure = len(o.writes), len(o.writes)
			for len(o.made) < o.acked {
				o.made, o.ackedAt = append(o.made, time.Now()), append(o.ackedAt, time.Now())
			}
		}
		for range rng.IntN(4) { // recoveries that die
			gen++
			h = newHost(s, content, 1+rng.IntN(40), rng.IntN(2) == 0)
			h.client.latency = time.Duration(rng.IntN(20)) * time.Millisecond
			_ = o.dieRecovering(ctx, h, gen)
			damage()
		}
		gen++
		h = newHost(s, content, 0, false)
		d, j, err := h.attach(ctx, gen)
		if err != nil {
			return fmt.Errorf("session %d: reopen: %w", session, err)
		}
		if err := o.check(ctx, d, kept); err != nil {
			return fmt.Errorf("session %d: %w", session, err)
		}
		if err := j.Err(); err != nil {
			return err
		}
		d.Abandon()
		content = h.file.Crash(rng)
	}
	return nil
}

// dieRecovering attaches, which may die at any operation of that, and writes nothing.
func (o *timedOracle) dieRecovering(ctx context.Context, h *host, gen uint64) error {
	d, _, err := h.attach(ctx, gen)
	if err != nil {
		return err
	}
	d.Abandon()
	return nil
}

func TestBoundedLosesNothingWithItsJournalAndAtMostTheBoundWithout(t *testing.T) {
	n := uint64(60)
	if s := os.Getenv("SLUICE_DISK_SEEDS"); s != "" {
		n, _ = strconv.ParseUint(s, 10, 32)
	}
	for seed := range n {
		synctest.Test(t, func(t *testing.T) {
			if err := boundedLife(t.Context(), seed); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		})
	}
}
