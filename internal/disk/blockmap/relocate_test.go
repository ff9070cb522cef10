package blockmap

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// pack describes a copy of all that is mapped to a segment, and says so in the model where that
// still holds.
func (md *model) pack(from Segment, seq uint64) (format.SegmentEntry, []Move) {
	to := format.SegmentEntry{Kind: format.KindSeg, Epoch: 1, Seq: seq, HeaderLen: 200,
		Size: 1 << 20}
	var moves []Move
	for b, h := range md.blocks {
		if h.seq != from.Entry.Seq || from.Entry.Kind == format.KindSeg {
			continue
		}
		if n := len(moves); n > 0 && moves[n-1].Block+uint64(moves[n-1].Count) == uint64(b) &&
			moves[n-1].First+moves[n-1].Count == h.block {
			moves[n-1].Count++
		} else {
			moves = append(moves, Move{Block: uint64(b), Count: 1, First: h.block, From: from})
		}
		to.Blocks++
	}
	return to, moves
}

// relocate does what the map is to do. A block in a packed segment has a number of its own in the
// model.
func (md *model) relocate(to format.SegmentEntry, moves []Move) uint32 {
	var at, n uint32
	for _, v := range moves {
		for i := range v.Count {
			if h := &md.blocks[v.Block+uint64(i)]; *h == (home{v.From.Entry.Seq, v.First + i}) {
				*h = home{to.Seq, at}
				n++
			}
			at++
		}
	}
	return n
}

func TestRelocateAgainstAModel(t *testing.T) {
	const size = 64 << 20
	s := newPageStore(t)
	rng := rand.New(rand.NewPCG(11, 3))
	md := &model{blocks: make([]home, size/format.BlockSize)}
	m := New(size, nil, 0, s, 1<<20)
	seq, n := uint64(0), uint32(0)
	moved := uint32(0)
	for round := range 60 {
		for range 3 {
			seq++
			md.apply(t, m, rng, seq)
		}
		if round%4 == 3 { // regions and the table come from their pages from now on
			n++
			root := s.save(t, m, size, n)
			m = New(size, root, 0, s, 1<<20)
		}
		if err := m.LoadSegments(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := m.Segments()
		if len(all) == 0 {
			continue
		}
		to, moves := md.pack(all[rng.IntN(len(all))], 1<<40+uint64(round))
		if rng.IntN(2) == 0 { // the disk changes between the copy and the move
			seq++
			md.apply(t, m, rng, seq)
		}
		got, err := m.Relocate(t.Context(), to, moves)
		if want := md.relocate(to, moves); got != want || err != nil {
			t.Fatalf("round %d: %d blocks moved, want %d (%v)", round, got, want, err)
		}
		moved += got
		md.check(t, m, 0, uint64(len(md.blocks)))
		exact(t, m, md)
	}
	if moved == 0 {
		t.Error("nothing was ever moved")
	}
}

// exact compares the live counts in memory with the model.
func exact(t *testing.T, m *Map, md *model) {
	t.Helper()
	if err := m.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	live := map[uint64]uint32{}
	for _, h := range md.blocks {
		if h.seq != 0 {
			live[h.seq]++
		}
	}
	if err := m.LoadSegments(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range m.Segments() {
		if live[s.Entry.Seq] != s.Entry.Live {
			t.Fatalf("segment %d has %d live blocks, the map says %d", s.Entry.Seq,
				live[s.Entry.Seq], s.Entry.Live)
		}
		delete(live, s.Entry.Seq)
	}
	if len(live) > 0 {
		t.Fatalf("the table lacks %v", live)
	}
}

// TestRelocateLooksAtTheSegmentNotItsIndex overwrites a segment whole while it is being copied, by
// one that gets its index and puts the same block at the same place.
func TestRelocateLooksAtTheSegmentNotItsIndex(t *testing.T) {
	m := New(1<<20, nil, 0, newPageStore(t), 1<<20)
	write := func(seq uint64) Segment {
		t.Helper()
		if err := m.Apply(format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: seq,
			HeaderLen: 200, Size: 1 << 20, Blocks: 1},
			[]format.Run{{LBA: 5, Count: 1}}, format.Position{Epoch: 1, Seq: seq + 1}); err != nil {
			t.Fatal(err)
		}
		all := m.Segments()
		return all[len(all)-1]
	}
	write(1)
	old := write(2) // frees the first one's index
	write(3)
	last := write(4)
	if old.Index != last.Index || len(m.Segments()) != 1 {
		t.Fatalf("the index was not reused: %+v, %+v", old, last)
	}
	to := format.SegmentEntry{Kind: format.KindSeg, Epoch: 1, Seq: 1, HeaderLen: 200,
		Size: 1 << 20, Blocks: 1}
	if n, err := m.Relocate(t.Context(), to, []Move{{Block: 5, Count: 1, From: old}}); n != 0 ||
		err != nil {
		t.Fatalf("%d blocks were taken back to what they were: %v", n, err)
	}
	if n, err := m.Relocate(t.Context(), to, []Move{{Block: 5, Count: 1, From: last}}); n != 1 ||
		err != nil {
		t.Fatalf("%d blocks moved: %v", n, err)
	}
}
