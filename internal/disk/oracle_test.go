package disk_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// oracle knows every write to a disk of stamped blocks, in order. Each write stamps one block with
// its number; a trim is a write whose stamp reads as zero.
type oracle struct {
	blocks int
	writes []stampWrite // write i has number i+1
	acked  int          // writes that a successful flush covered
}

type stampWrite struct {
	block int
	trim  bool
}

func stamp(buf []byte, n int, block int) {
	for i := 0; i < len(buf); i += 16 {
		binary.LittleEndian.PutUint64(buf[i:], uint64(n))
		binary.LittleEndian.PutUint64(buf[i+8:], uint64(block)^uint64(i)<<32)
	}
}

// step makes one random mutation or flush.
func (o *oracle) step(ctx context.Context, rng *rand.Rand, d disk.Device) error {
	buf := make([]byte, 4096)
	block := rng.IntN(o.blocks)
	switch k := rng.IntN(10); {
	case k < 7:
		stamp(buf, len(o.writes)+1, block)
		o.writes = append(o.writes, stampWrite{block: block})
		return d.WriteAt(ctx, buf, int64(block)*4096)
	case k == 7:
		o.writes = append(o.writes, stampWrite{block: block, trim: true})
		return d.Trim(ctx, int64(block)*4096, 4096)
	}
	n := len(o.writes)
	err := d.Flush(ctx)
	if err == nil {
		o.acked = n
	}
	return err
}

// prefix returns how many writes the disk's content is the result of, or why it is no prefix at all
// that has every acknowledged write.
func (o *oracle) prefix(ctx context.Context, d disk.Device) (int, error) {
	seen := make([]int, o.blocks) // number of the write that each block shows; 0: zeros
	buf, want := make([]byte, 4096), make([]byte, 4096)
	for b := range o.blocks {
		if err := d.ReadAt(ctx, buf, int64(b)*4096); err != nil {
			return 0, fmt.Errorf("read block %d: %w", b, err)
		}
		n := int(binary.LittleEndian.Uint64(buf))
		if n < 0 || n > len(o.writes) {
			return 0, fmt.Errorf("block %d has the stamp %d of %d", b, n, len(o.writes))
		}
		clear(want)
		if n > 0 {
			stamp(want, n, b)
		}
		if string(buf) != string(want) {
			return 0, fmt.Errorf("block %d is torn", b)
		}
		seen[b] = n
	}
	// The content after k writes, for every k: find one that matches.
	at := make([]int, o.blocks)
	bad := 0
	for b := range seen {
		if seen[b] != 0 {
			bad++
		}
	}
	best := -1
	for k := 0; ; k++ {
		if bad == 0 {
			best = k
		}
		if k == len(o.writes) {
			break
		}
		w := o.writes[k]
		was := at[w.block] == seen[w.block]
		at[w.block] = k + 1
		if w.trim {
			at[w.block] = 0
		}
		is := at[w.block] == seen[w.block]
		if was && !is {
			bad++
		} else if !was && is {
			bad--
		}
	}
	switch {
	case best < 0:
		return 0, fmt.Errorf("the content is no prefix of the writes")
	case best < o.acked:
		return best, fmt.Errorf("the content is that after %d writes; %d were acknowledged",
			best, o.acked)
	}
	return best, nil
}

// reset goes on from what a reopened disk shows: the writes after it never happened.
func (o *oracle) reset(n int) {
	o.writes = o.writes[:n]
	o.acked = n
}

// runUntilDeath runs a workload until the client dies or it is over, closing in the end.
func runUntilDeath(ctx context.Context, c *simClient, o *oracle, gen uint64, seed uint64,
	steps int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.died:
			cancel()
		case <-ctx.Done():
		}
	}()
	opts := disk.AttachOptions{Generation: gen, Holder: fmt.Sprint("vm-", gen)}
	opts.ObjectBytes, opts.CheckpointObjects, opts.InFlight = 16<<10, 3, 4
	opts.CompactBytes, opts.CompactShare = 4096, 4
	d, err := disk.Attach(ctx, c, path, opts)
	if err != nil {
		return err
	}
	defer d.Abandon()
	rng := rand.New(rand.NewPCG(seed, 99))
	for i := range steps {
		if err := o.step(ctx, rng, d); err != nil {
			return err
		}
		if rng.IntN(30) == 0 {
			if _, err := d.Compact(ctx, disk.CompactOptions{}); err != nil {
				return err
			}
		}
		if rng.IntN(40) == 0 { // now and then a named checkpoint in between
			if _, err := d.Checkpoint(ctx, fmt.Sprintf("c%d-%d-%d", gen, seed, i)); err != nil {
				return err
			}
		}
	}
	n := len(o.writes)
	if err := d.Close(ctx); err != nil {
		return err
	}
	o.acked = n
	return nil
}

// TestCutAtEveryRequest cuts a workload at each of its requests, before and after the request takes
// effect, reopens the disk and asks the oracle. Every third reopening is cut as well, so that
// recovery itself is.
func TestCutAtEveryRequest(t *testing.T) {
	ctx := testCtx(t)
	const blocks, steps = 48, 140
	for _, how := range []verdict{dieBefore, dieAfter} {
		for cut := 1; ; cut++ {
			s := newSim()
			create(t, s.client(), path, blocks*4096)
			o := &oracle{blocks: blocks}
			seed := uint64(cut)
			c := s.client()
			c.judge = func(n int, _, _ string) verdict {
				if n == cut {
					return how
				}
				return pass
			}
			err := runUntilDeath(ctx, c, o, 1, seed, steps)
			if err == nil {
				if cut < 40 {
					t.Fatalf("only %d requests to cut", cut)
				}
				break
			}
			gen := uint64(2)
			for again := range cut % 3 { // die in recovery too
				c := s.client()
				c.judge = func(n int, _, _ string) verdict {
					if n == 1+again+cut/3 {
						return how
					}
					return pass
				}
				_ = runUntilDeath(ctx, c, &oracle{blocks: blocks}, gen, seed, 0)
				gen++
			}
			d, err := disk.Attach(ctx, s.client(), path,
				disk.AttachOptions{Generation: gen, Holder: "last"})
			if err != nil {
				t.Fatalf("cut %v at %d: reopen: %v", how, cut, err)
			}
			if _, err := o.prefix(ctx, d); err != nil {
				t.Fatalf("cut %v at %d: %v", how, cut, err)
			}
			d.Abandon()
		}
	}
}

// seeds returns how many seeds to run: n, or what SLUICE_DISK_SEEDS says for a longer run.
func seeds(t *testing.T, n uint64) uint64 {
	t.Helper()
	if s := os.Getenv("SLUICE_DISK_SEEDS"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestRandomFaults runs sessions over a store that refuses, loses answers and lets requests happen
// late, each ending in a crash or a close; the oracle is asked after each.
func TestRandomFaults(t *testing.T) {
	for seed := range seeds(t, 8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ctx := testCtx(t)
			s := newSim()
			create(t, s.client(), path, 64*4096)
			o := &oracle{blocks: 64}
			rng := rand.New(rand.NewPCG(seed, 3))
			var old []*simClient
			for gen := uint64(1); gen <= 6; gen++ {
				c := s.client()
				frng := rand.New(rand.NewPCG(seed, gen))
				dieAt := 20 + rng.IntN(150)
				c.judge = func(n int, op, _ string) verdict { // called under the client's lock
					if n == dieAt {
						return dieBefore
					}
					return [...]verdict{pass, refuse, loseReply, late}[max(0, frng.IntN(24)-20)]
				}
				err := runUntilDeath(ctx, c, o, gen, seed*100+gen, 60)
				if err != nil && !errs.Is(err, errs.Unavailable) {
					t.Fatalf("session %d: %v", gen, err)
				}
				old = append(old, c)
				d, err := disk.Attach(ctx, s.client(), path,
					disk.AttachOptions{Generation: gen + 1, Holder: fmt.Sprint("vm-", gen+1)})
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range old { // what old sessions sent arrives now
					c.release()
				}
				n, err := o.prefix(ctx, d)
				if err != nil {
					t.Fatalf("session %d: %v", gen, err)
				}
				o.reset(n)
				d.Abandon()
			}
		})
	}
}
