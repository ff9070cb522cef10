package blockmap

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// pageStore keeps pages objects by version, and roots as they would be decoded.
type pageStore struct {
	codec *format.Codec
	mu    sync.Mutex
	pages map[string][]byte
	reads int
}

func (s *pageStore) ReadPage(_ context.Context, r format.PageRef) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	obj := s.pages[fmt.Sprintf("%d-%d", r.Epoch, r.N)]
	return s.codec.DecodeStored(nil, obj[r.Offset:r.Offset+r.Length], r, nil)
}

func newPageStore(t *testing.T) *pageStore {
	t.Helper()
	c, err := format.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return &pageStore{codec: c, pages: map[string][]byte{}}
}

// save writes a checkpoint of m and returns its root as a reader would see it.
func (s *pageStore) save(t *testing.T, m *Map, size int64, n uint32) *format.Root {
	t.Helper()
	if err := m.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	snap, ok := m.Snapshot()
	if !ok {
		t.Fatal("incomplete after Complete")
	}
	obj, root := m.Encode(snap, s.codec, Version{Epoch: 1, N: n})
	s.mu.Lock()
	s.pages[fmt.Sprintf("%d-%d", 1, n)] = obj
	s.mu.Unlock()
	m.Commit(snap)
	root.Size, root.Lineage = size, []format.Ancestor{{Path: "d", UID: "u"}}
	got, err := s.codec.DecodeRoot(s.codec.EncodeRoot(root, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

type home struct {
	seq   uint64
	block uint32
}

// model is the map as a flat table.
type model struct {
	blocks []home
}

func (md *model) apply(t *testing.T, m *Map, rng *rand.Rand, seq uint64) {
	t.Helper()
	var runs []format.Run
	n := uint64(len(md.blocks))
	if rng.IntN(3) == 0 {
		lba := rng.Uint64N(n)
		runs = append(runs, format.Run{LBA: lba, Count: 1 + rng.Uint64N(min(n-lba, 5000)),
			Kind: format.RunZero})
	}
	zeros := len(runs)
	seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: seq, HeaderLen: 200,
		Size: 1 << 20}
	for lba := rng.Uint64N(n / 2); lba < n && len(runs) < zeros+1+rng.IntN(40); {
		c := min(1+rng.Uint64N(30), n-lba)
		runs = append(runs, format.Run{LBA: lba, Count: c})
		seg.Blocks += uint32(c)
		lba += c + rng.Uint64N(3)*rng.Uint64N(600)
	}
	if rng.IntN(2) == 0 {
		if err := m.Preload(t.Context(), m.Missing(runs)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Apply(seg, runs, format.Position{Epoch: 1, Seq: seq + 1}); err != nil {
		t.Fatal(err)
	}
	var b uint32
	for _, r := range runs {
		for i := r.LBA; i < r.LBA+r.Count; i++ {
			md.blocks[i] = home{}
			if r.Kind == format.RunData {
				md.blocks[i] = home{seq, b}
				b++
			}
		}
	}
}

func (md *model) check(t *testing.T, m *Map, block, count uint64) {
	t.Helper()
	pieces, err := m.Lookup(t.Context(), block, count, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := block
	for _, p := range pieces {
		if p.Block != at {
			t.Fatalf("piece at %d, want %d", p.Block, at)
		}
		for i := range uint64(p.Count) {
			want := md.blocks[at+i]
			got := home{}
			if p.Seg.Kind != format.KindFree {
				got = home{p.Seg.Seq, p.First + uint32(i)}
			}
			if got != want {
				t.Fatalf("block %d is at %+v, want %+v", at+i, got, want)
			}
		}
		at += uint64(p.Count)
	}
	if at != block+count {
		t.Fatalf("pieces end at %d, want %d", at, block+count)
	}
}

// checkLive compares every live count, and that no index is used twice.
func (md *model) checkLive(t *testing.T, m *Map) {
	t.Helper()
	want := map[uint64]uint32{}
	var mapped uint64
	for _, h := range md.blocks {
		if h.seq != 0 {
			want[h.seq]++
			mapped++
		}
	}
	got := map[uint64]uint32{}
	for i, p := range m.segs.pages {
		if p == nil {
			if err := m.load(t.Context(), want3('S', i)); err != nil {
				t.Fatal(err)
			}
			p = m.segs.pages[i]
		}
		for _, e := range p.entries {
			if e.Kind != format.KindFree {
				got[e.Seq] += e.Live
			}
		}
	}
	if len(got) != len(want) || m.mapped != mapped {
		t.Fatalf("%d live segments and %d blocks, want %d and %d", len(got), m.mapped,
			len(want), mapped)
	}
	for s, n := range want {
		if got[s] != n {
			t.Fatalf("segment %d has %d live blocks, want %d", s, got[s], n)
		}
	}
}

func want3(kind uint8, i int) want { return want{kind, uint32(i)} }

func TestMapAgainstAFlatTable(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			store := newPageStore(t)
			size := int64(20_000+rng.IntN(5000)) * format.BlockSize
			md := &model{blocks: make([]home, size/format.BlockSize)}
			budget := int64(64 << 10) // small: clean regions come and go
			m := New(size, nil, 0, store, budget)
			var root *format.Root
			for i := range 300 {
				md.apply(t, m, rng, uint64(i+1))
				for range 3 {
					b := rng.Uint64N(uint64(len(md.blocks)))
					md.check(t, m, b, 1+rng.Uint64N(min(3000, uint64(len(md.blocks))-b)))
				}
				switch rng.IntN(20) {
				case 0:
					store.save(t, m, size, uint32(i))
				case 1: // a checkpoint that could not be written
					if err := m.Complete(t.Context()); err != nil {
						t.Fatal(err)
					}
					if s, ok := m.Snapshot(); ok {
						m.Encode(s, store.codec, Version{Epoch: 9, N: uint32(i)})
						md.apply(t, m, rng, uint64(1000+i))
						m.Rollback(s)
					}
				case 2: // another session
					root = store.save(t, m, size, uint32(i))
					m = New(size, root, 0, store, budget)
				}
			}
			root = store.save(t, m, size, 999)
			md.checkLive(t, m)
			m = New(size, root, 0, store, budget)
			md.check(t, m, 0, uint64(len(md.blocks)))
			md.checkLive(t, m)
		})
	}
}

func TestAForkReadsItsParentsPages(t *testing.T) {
	store := newPageStore(t)
	size := int64(1 << 30)
	m := New(size, nil, 0, store, 1<<20)
	seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: 1, HeaderLen: 200,
		Size: 1 << 20, Blocks: 8}
	if err := m.Apply(seg, []format.Run{{LBA: 5000, Count: 8}},
		format.Position{Epoch: 1, Seq: 2}); err != nil {
		t.Fatal(err)
	}
	root := store.save(t, m, size, 1)
	child := New(size, root, 1, store, 1<<20)
	p, err := child.Lookup(t.Context(), 5000, 8, nil)
	if err != nil || len(p) != 1 || p[0].Seg.Lineage != 1 {
		t.Fatalf("%+v %v", p, err)
	}
}

func TestMapOf16TiBIsSmall(t *testing.T) {
	store := newPageStore(t)
	m := New(format.MaxSize, nil, 0, store, 1<<20)
	for i := range uint64(2000) { // spread over the whole disk
		seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: i + 1, HeaderLen: 200,
			Size: 1 << 20, Blocks: 2}
		runs := []format.Run{{LBA: i * (format.MaxBlocks / 2000), Count: 2}}
		if err := m.Apply(seg, runs, format.Position{Epoch: 1, Seq: i + 2}); err != nil {
			t.Fatal(err)
		}
	}
	root := store.save(t, m, format.MaxSize, 1)
	if n := len(store.codec.EncodeRoot(root, nil)); n > 100<<10 {
		t.Fatalf("root of 16 TiB is %d bytes", n)
	}
	store.reads = 0
	again := New(format.MaxSize, root, 0, store, 1<<20)
	if _, err := again.Lookup(t.Context(), format.MaxBlocks-1, 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Lookup(t.Context(), 0, 1, nil); err != nil {
		t.Fatal(err)
	}
	if store.reads > 5 { // two directories, one region, one segment page
		t.Fatalf("two lookups read %d pages", store.reads)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	m := New(1<<30, nil, 0, newPageStore(t), 1<<20)
	seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: 1, HeaderLen: 200,
		Size: 1 << 20, Blocks: 512}
	if err := m.Apply(seg, []format.Run{{LBA: 0, Count: 512}},
		format.Position{Epoch: 1, Seq: 2}); err != nil {
		t.Fatal(err)
	}
	out := make([]Piece, 0, 8)
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { out, _ = m.Lookup(ctx, 7, 64, out[:0]) }); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}
