//go:build bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// farAway is a latency beside which all else is small, so that the time of an operation tells how
// many store round trips it takes one after the other.
const farAway = 100 * time.Millisecond

// scaled is a disk of the size comparison.
type scaled struct {
	what   string
	size   int64
	blocks uint64 // mapped
	store  blob.Store
	gen    uint64 // of the last attach
	at     uint64 // index of the mapped block that was written last
	times  map[string][]time.Duration
}

// TestDiskOperationsAtAnySize times what moves metadata only, on a disk of 1 GiB with 10,000 mapped
// blocks and on one of 1 TiB with 10 million, single ones all over it: the map that costs most.
// SLUICE_BENCH_BLOCKS sets another number for the large one.
func TestDiskOperationsAtAnySize(t *testing.T) {
	blocks := uint64(10_000_000)
	if s := os.Getenv("SLUICE_BENCH_BLOCKS"); s != "" {
		var err error
		if blocks, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	disks := []*scaled{newScaled(t, "1 GiB", 1<<30, 10_000), newScaled(t, "1 TiB", 1<<40, blocks)}
	for _, latency := range []time.Duration{0, 5 * time.Millisecond,
		20 * time.Millisecond, farAway} {
		rounds := 20
		if latency == farAway {
			rounds = 5
		}
		for _, d := range disks {
			d.times = map[string][]time.Duration{}
		}
		for i := range rounds {
			for k := range disks { // in turn, and each first as often
				disks[(i+k)%len(disks)].round(t, latency, fmt.Sprintf("%s-%d", latency, i))
			}
		}
		reportScaled(disks[0], disks[1], latency)
	}
}

// newScaled makes a closed disk whose mapped blocks are spread evenly over all of it, in random
// order. The map is made by the disk's own code and stored as a map checkpoint of the disk; the
// segments that it refers to are not there, since only the blocks that a round writes are ever
// read.
func newScaled(t *testing.T, what string, size int64, blocks uint64) *scaled {
	t.Helper()
	ctx := t.Context()
	store, err := fileblob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s := &scaled{what: what, size: size, blocks: blocks, store: store, gen: 1, at: blocks / 2}
	head, err := disk.Create(ctx, store, diskPath, disk.CreateOptions{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	m := blockmap.New(size, nil, 0, nil, 1<<62)
	fillMap(t, m, s.order(), s.block, 1)
	s.storeMap(t, m, head)
	d := s.attach(t, store) // the first round reads what is written here
	s.write(t, d)
	closeDisk(t, d)
	return s
}

// order gives the indexes of all mapped blocks, in an order in which hardly any two that are
// adjacent in the log are near each other.
func (s *scaled) order() []uint32 { return shuffled(int(s.blocks)) }

// storeMap writes a map checkpoint, and makes the head of a new disk point at it.
func (s *scaled) storeMap(t *testing.T, m *blockmap.Map, h *format.Head) {
	t.Helper()
	ctx := t.Context()
	codec, err := format.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	snap, ok := m.Snapshot()
	if !ok {
		t.Fatal("a map that was never stored is incomplete")
	}
	pages, root := m.Encode(snap, codec, blockmap.Version{Epoch: 1, N: 1, Nonce: format.ID{1}})
	root.Size, root.Lineage, root.Created = s.size, h.Lineage, time.Now().UnixMilli()
	body := codec.EncodeRoot(root, nil)
	for name, b := range map[string][]byte{"pages": pages, "root": body} {
		if _, err := s.store.PutIfAbsent(ctx, diskPath+"/map/0000000000000001-00000001/"+name,
			b); err != nil {
			t.Fatal(err)
		}
	}
	old, err := s.store.Get(ctx, diskPath+"/head", blob.All())
	if err != nil {
		t.Fatal(err)
	}
	h.Epoch, h.Generation, h.State = 1, 1, format.StateClosed
	h.Root = &format.RootRef{Epoch: 1, N: 1, Size: int64(len(body)), CRC: format.CRC(body),
		PagesSize: int64(len(pages))}
	doc, err := format.Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.PutIfMatch(ctx, diskPath+"/head", doc, old.ETag); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("RESULT disk of %s: %d blocks mapped, map of %.1f MB under a root of %.1f KB\n",
		s.what, m.Mapped(),
		float64(len(pages))/1e6, float64(len(body))/1e3)
}

func (s *scaled) attach(t *testing.T, store blob.Store) *disk.Disk {
	t.Helper()
	s.gen++
	d, err := disk.Attach(t.Context(), store, diskPath,
		disk.AttachOptions{Generation: s.gen, Holder: "bench", Tuning: disk.Tuning{BootWindow: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Abandon)
	return d
}

// write writes another random block than the last one.
func (s *scaled) write(t *testing.T, d *disk.Disk) {
	t.Helper()
	s.at = rand.Uint64N(s.blocks)
	writeBlocks(t, d, s.here)
}

func (s *scaled) here(yield func(uint64) bool) { yield(s.block(s.at)) }

// block returns the i-th mapped block.
func (s *scaled) block(i uint64) uint64 { return i * (uint64(s.size) / blockSize / s.blocks) }

// round does each operation once, and notes how long each took.
func (s *scaled) round(t *testing.T, latency time.Duration, name string) {
	t.Helper()
	ctx := t.Context()
	store := s.store
	if latency > 0 {
		store = decorate.Latency(store, latency)
	}
	timed := func(what string, do func() error) {
		start := time.Now()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s.times[what] = append(s.times[what], time.Since(start))
	}
	var d *disk.Disk
	timed("attach after a clean close", func() error {
		d = s.attach(t, store)
		return nil
	})
	timed("first read of a random block", func() error {
		readBlocks(t, d, s.here)
		return nil
	})
	checkpoint := func(name string) func() error {
		return func() error { _, err := d.Checkpoint(ctx, name); return err }
	}
	timed("checkpoint with nothing new", checkpoint("clean-"+name))
	writeBlocks(t, d, s.here) // the block that was read
	timed("checkpoint with a dirty block", checkpoint("warm-"+name))
	s.write(t, d)
	timed("checkpoint with a dirty block whose map pages are not in memory",
		checkpoint("dirty-"+name))
	timed("fork", func() error {
		_, err := disk.Fork(ctx, store, diskPath, "dirty-"+name, "disks/fork-"+name,
			disk.ForkOptions{})
		return err
	})
	timed("close with nothing new", func() error { return d.Close(ctx) })
	timed("restore", func() error {
		_, _,
			err := disk.Restore(ctx, store, diskPath, "dirty-"+name)
		return err
	})
}

// reportScaled prints what each operation took on both disks, and at a latency beside which all
// else is small, the number of round trips. One PUT is what a close with nothing new makes.
func reportScaled(small, large *scaled, latency time.Duration) {
	put := percentile(small.times["close with nothing new"], 50)
	for _, x := range []struct {
		what   string
		rounds int           // at most, by the aim; 0: none is set
		within time.Duration // the aim; 0: none is set
	}{
		{"attach after a clean close", 3, 0}, {"first read of a random block", 0, 0},
		{"checkpoint with nothing new", 0, 2*put + 20*time.Millisecond},
		{"checkpoint with a dirty block", 0, 2*put + 20*time.Millisecond},
		{"checkpoint with a dirty block whose map pages are not in memory", 0,
			2*put + 20*time.Millisecond},
		{"fork", 4, 0}, {"close with nothing new", 0, 0}, {"restore", 0, 500 * time.Millisecond},
	} {
		a, b := percentile(small.times[x.what], 50), percentile(large.times[x.what], 50)
		line := fmt.Sprintf(
			"RESULT %s, store latency %v: p50 %.2f ms at %s, %.2f ms at %s, ratio %.2f",
			x.what, latency,
			ms(a), small.what, ms(b), large.what, float64(b)/float64(a))
		if x.within > 0 && latency < farAway {
			line += fmt.Sprintf(" (aim %.2f ms)", ms(x.within))
		}
		if latency == farAway {
			line += fmt.Sprintf("; store round trips one after the other: %.0f and %.0f",
				rounds(a), rounds(b))
			if x.rounds > 0 {
				line += fmt.Sprintf(" (aim %d)", x.rounds)
			}
		}
		fmt.Println(line)
	}
}

func rounds(d time.Duration) float64 { return float64(d / farAway) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
