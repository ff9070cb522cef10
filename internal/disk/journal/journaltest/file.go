// Package journaltest has a device for tests of journals that loses power: what was not synced may
// be there, in part, or not at all.
package journaltest

import (
	"io"
	"math/rand/v2"
	"sync"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const page = 4096

// Fate is what becomes of one operation.
type Fate int

// An operation happens, or the host dies before or after it.
const (
	Pass Fate = iota
	Before
	After
)

// Death ends a host at one of its operations, counted from 1; At 0 is never. Safe for concurrent
// use.
type Death struct {
	At    int
	After bool

	mu   sync.Mutex
	n    int
	dead bool
}

// Tick counts an operation and says what becomes of it. Once dead, nothing happens any more.
func (d *Death) Tick() Fate {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return Before
	}
	if d.n++; d.n != d.At {
		return Pass
	}
	d.dead = true
	if d.After {
		return After
	}
	return Before
}

// Kill ends the host now.
func (d *Death) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// Dead reports whether it has happened.
func (d *Death) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// File is a journal.File in memory. Its operations share a Death with whatever else the host does.
type File struct {
	death *Death

	mu     sync.Mutex
	synced []byte
	cached []byte  // what a read sees
	dirty  []write // since the last sync
}

type write struct{ off, end int64 }

// New returns a device with a copy of that content.
func New(content []byte, d *Death) *File {
	return &File{death: d, synced: append([]byte(nil), content...),
		cached: append([]byte(nil), content...)}
}

func gone() error { return errs.New(errs.Unavailable, "the host is dead") }

// op runs f as its fate says.
func (f *File) op(run func()) error {
	fate := f.death.Tick()
	if fate != Before {
		f.mu.Lock()
		run()
		f.mu.Unlock()
	}
	if fate != Pass {
		return gone()
	}
	return nil
}

// ReadAt implements journal.File.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	err := f.op(func() { n = copy(p, f.cached[min(off, int64(len(f.cached))):]) })
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements journal.File.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(f.cached)) {
		return 0, errs.New(errs.Exhausted, "write past the end")
	}
	return len(p), f.op(func() {
		copy(f.cached[off:], p)
		f.dirty = append(f.dirty, write{off, off + int64(len(p))})
	})
}

// Sync implements journal.File.
func (f *File) Sync() error {
	return f.op(func() {
		copy(f.synced, f.cached)
		f.dirty = nil
	})
}

// Close implements journal.File.
func (f *File) Close() error { return nil }

// Crash returns what the device holds after a crash: of the host, which keeps all, or of its power,
// which keeps any of the pages that were not synced, or leaves them unreadable.
func (f *File) Crash(rng *rand.Rand) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := append([]byte(nil), f.synced...)
	odds := rng.IntN(5)
	for _, w := range f.dirty {
		for at := w.off / page * page; at < w.end; at += page {
			p := out[at:min(at+page, int64(len(out)))]
			if rng.IntN(4) < odds {
				copy(p, f.cached[at:])
			} else if odds < 4 && rng.IntN(8) == 0 {
				for i := range p {
					p[i] = byte(rng.Uint32())
				}
			}
		}
	}
	return out
}
