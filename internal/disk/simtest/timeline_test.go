package simtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
)

const blockSize = disk.BlockSize

// content says which write each block of a disk shows; 0: zeros.
type content []uint64

// timeline is one session's writes in order, over the content that it began with.
type timeline struct {
	mu     sync.Mutex
	base   content
	writes []write
	acked  int // of the writes, covered by a flush that returned nil
	stored int // of those, what may not be lost with the journal either
	cut    int // of the writes, what a successor found; -1: there is none yet

	bound time.Duration // of a session whose journal acknowledges; 0: the store does
	made  []time.Time   // when each write was taken; zero: it wasn't yet
	acks  []ack         // by the journal
}

// ack is a flush that returned nil, and how many writes it covered.
type ack struct {
	at time.Time
	n  int
}

// write makes blocks [from, to) show id, or zeros for a trim.
type write struct {
	from, to int
	id       uint64
	trim     bool
}

func newTimeline(base content) *timeline { return &timeline{base: slices.Clone(base), cut: -1} }

func (c content) apply(w write) {
	for b := w.from; b < w.to; b++ {
		c[b] = w.id
		if w.trim {
			c[b] = 0
		}
	}
}

func (t *timeline) add(w write) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writes = append(t.writes, w)
	t.made = append(t.made, time.Time{})
}

// took notes that the device has taken the newest write.
func (t *timeline) took() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.made[len(t.made)-1] = time.Now()
}

func (t *timeline) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.writes)
}

// ack notes that a flush acknowledged the first n writes, and refuses what the successor didn't
// find: all of it, or of a session with a journal what was older than the bound.
func (t *timeline) ack(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked = max(t.acked, n)
	if t.bound > 0 {
		t.acks = append(t.acks, ack{time.Now(), n})
	} else {
		t.stored = max(t.stored, n)
	}
	return t.replaced()
}

// keep notes that the first n writes are in the store, whatever becomes of a journal.
func (t *timeline) keep(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked, t.stored = max(t.acked, n), max(t.stored, n)
	return t.replaced()
}

func (t *timeline) replaced() error {
	if t.cut < 0 {
		return nil
	}
	if err := t.lacks(t.cut); err != nil {
		return fmt.Errorf("two writers: a replaced one, of which its successor found %d writes: %w",
			t.cut, err)
	}
	return nil
}

// lacks returns what must not be missing if n writes are left and no journal.
func (t *timeline) lacks(n int) error {
	if n < t.stored {
		return fmt.Errorf("lost: content of %d writes, %d were acknowledged", n, t.stored)
	}
	for _, a := range t.acks {
		if a.n > n && a.at.Sub(t.made[n]) > t.bound {
			return fmt.Errorf(
				"lost: content of %d writes, %d were acknowledged %v after the next was made, over a bound of %v",
				n, a.n, a.at.Sub(t.made[n]), t.bound)
		}
	}
	return nil
}

// now returns the content after all writes.
func (t *timeline) now() content {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := slices.Clone(t.base)
	for _, w := range t.writes {
		c.apply(w)
	}
	return c
}

// prefix returns of how many whole writes got is the content, with a part of the next at most. A
// disk that was grown since shows zeros beyond. With its journal kept nothing that was acknowledged
// may be missing.
func (t *timeline) prefix(got content, kept bool) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := make(content, len(got))
	copy(c, t.base)
	best := -1
	note := func(k int) {
		if slices.Equal(c, got) {
			best = k
		}
	}
	note(0)
	for k, w := range t.writes {
		for b := w.from; b < w.to; b++ { // a write of several blocks may be cut between any two
			c.apply(write{from: b, to: b + 1, id: w.id, trim: w.trim})
			note(k)
		}
		note(k + 1)
	}
	switch {
	case best < 0:
		return 0, fmt.Errorf("no prefix: content %v, base %v, %d writes, %d acknowledged", got,
			t.base, len(t.writes), t.acked)
	case best < t.acked && kept:
		return 0,
			fmt.Errorf(
				"lost: content of %d writes, %d were acknowledged, and the journal was there",
				best, t.acked)
	}
	return best, t.lacks(best)
}

// succeed ends the timeline at n writes, for a successor that found them.
func (t *timeline) succeed(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = n
	return t.replaced()
}

// stamp fills a block so that every 16 bytes name the write and the place.
func stamp(buf []byte, id uint64, block int) {
	for i := 0; i < len(buf); i += 16 {
		binary.LittleEndian.PutUint64(buf[i:], id)
		binary.LittleEndian.PutUint64(buf[i+8:], uint64(block)^uint64(i)<<32)
	}
}

// readContent reads a whole device and checks every byte of it.
func readContent(ctx context.Context, d disk.Device) (content, error) {
	n := int(d.Size() / blockSize)
	all := make([]byte, d.Size())
	if err := d.ReadAt(ctx, all, 0); err != nil {
		return nil, err
	}
	c := make(content, n)
	want := make([]byte, blockSize)
	for b := range n {
		got := all[b*blockSize : (b+1)*blockSize]
		c[b] = binary.LittleEndian.Uint64(got)
		clear(want)
		if c[b] != 0 {
			stamp(want, c[b], b)
		}
		if string(got) != string(want) {
			return nil, fmt.Errorf("block %d with the stamp %d is torn", b, c[b])
		}
	}
	return c, nil
}
