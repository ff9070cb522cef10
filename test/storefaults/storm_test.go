package storefaults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const stormRounds = 12

// TestAStormOfFalseAnswers answers every fifth request at random in some false way while a disk is
// written, flushed, checkpointed, forked and collected, and crashes again and again in the middle
// of it. By what the real store has, each block is as it was acknowledged, or as it was written
// after.
func TestAStormOfFalseAnswers(t *testing.T) {
	server := versitygwtest.Start(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &storm{life: newLife(t, server, s3faulttest.Kind{}), rng: rand.New(rand.NewPCG(seed, 0)),
		after: map[int64][][]byte{}}
	for _, k := range s3faulttest.Kinds() {
		// no silence, which takes its time
		if !k.Silent && (k.Says != "" || k.Harmless) && k.Name != "429 Retry-After" {
			s.kinds = append(s.kinds, k)
		}
	}
	s.must(s.create(s.ctx))
	for round := range stormRounds {
		s.must(s.attach(s.ctx))
		s.proxy.BreakEach(s.pick)
		for range 12 {
			s.step(round)
		}
		if err := s.d.Err(); err != nil {
			t.Fatalf("round %d: the attachment ended: %v", round, err)
		}
		s.d.Abandon()
		s.proxy.Heal()
		s.look(round)
	}
	t.Logf("%d answers were false", s.hits)
}

type storm struct {
	*life
	rng   *rand.Rand
	kinds []s3faulttest.Kind
	after map[int64][][]byte // what was written to a block since it was last acknowledged
	hits  int
}

func (s *storm) pick(*http.Request) *s3faulttest.Kind {
	if s.rng.IntN(5) > 0 { // one request at a time, and nobody else draws while the storm lasts
		return nil
	}
	return &s.kinds[s.rng.IntN(len(s.kinds))]
}

// step does something. What fails may have been done.
func (s *storm) step(round int) {
	s.t.Helper()
	var err error
	switch n := s.life.rng.IntN(10); {
	case n < 8:
		s.write()
		if err = s.d.Flush(s.ctx); err == nil {
			for off, versions := range s.after {
				copy(s.want[off:], versions[len(versions)-1])
			}
			clear(s.after)
		}
	case n < 9:
		_, err = s.d.Checkpoint(s.ctx, fmt.Sprint("c", round))
		if err == nil {
			_, err = disk.Fork(s.ctx, s.via, diskPath, fmt.Sprint("c", round),
				fmt.Sprint("disks/f", round), disk.ForkOptions{})
		}
	default:
		err = s.collect(s.ctx)
	}
	switch errs.KindOf(err) {
	case "", errs.Unavailable, errs.Denied, errs.Exhausted, errs.Exists, errs.Conflict:
	default:
		s.t.Errorf("round %d: kind %q: %v", round, errs.KindOf(err), err)
	}
}

func (s *storm) write() {
	s.t.Helper()
	for range 6 {
		off := s.life.rng.Int64N(size/disk.BlockSize) * disk.BlockSize
		p := make([]byte, disk.BlockSize)
		for i := range p {
			p[i] = byte(s.life.rng.Uint32())
		}
		s.must(s.d.WriteAt(s.ctx, p, off))
		s.after[off] = append(s.after[off], p)
	}
}

// look reads the disk from the real store. What it has is what counts from then on.
func (s *storm) look(round int) {
	s.t.Helper()
	s.hits += s.proxy.Hits()
	s.gen++
	d, err := disk.Attach(s.ctx, s.real, diskPath,
		disk.AttachOptions{Generation: s.gen, Holder: fmt.Sprint("vm-", s.gen)})
	s.must(err)
	defer d.Abandon()
	got := make([]byte, size)
	s.must(d.ReadAt(s.ctx, got, 0))
	for off := int64(0); off < size; off += disk.BlockSize {
		block := got[off : off+disk.BlockSize]
		right := bytes.Equal(block, s.want[off:off+disk.BlockSize])
		for _, version := range s.after[off] {
			right = right || bytes.Equal(block, version)
		}
		if !right {
			s.t.Fatalf("round %d: what was acknowledged at byte %d is lost", round, off)
		}
	}
	copy(s.want, got)
	clear(s.after)
}
