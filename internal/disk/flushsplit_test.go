package disk

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheProcessorIsWaitedForAsEncode: a batch that takes long to be made into an object, and then
// to be put into the map, as on a host without time. A processor's time doesn't pass in a test's.
func TestTheProcessorIsWaitedForAsEncode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stamps
		b := blocking{since: time.Now()}
		f := flushing{began: time.Now()}
		f.blocked = b.until(f.began)
		pass := func(seconds int) time.Time {
			time.Sleep(time.Duration(seconds) * time.Second)
			return time.Now()
		}
		pass(1) // in the queue
		b.is(inMap)
		pass(2)
		b.is(inPace)
		pass(4)
		s.start(&b)
		pass(8)
		s.encode()
		s.uploaded = pass(16)
		s.turn = pass(32)
		f.split(&s, s.blocked, pass(64))
		want := waits{inQueue: 1 + 32, inMap: 2, inPace: 4, inEncode: 8 + 64, inStore: 16}
		for i, name := range Waits() {
			if got := f.waits[i]; got != want[i]*time.Second {
				t.Errorf("%s: %v, want %d s", name, got, want[i])
			}
		}
	})
}

// BenchmarkFlushWaits is what the waits add to a flush and to the object that it waits for.
func BenchmarkFlushWaits(b *testing.B) {
	d := &Disk{pipe: newPipeline(), counters: &counters{}}
	var mu sync.Mutex
	committed := make(chan struct{})
	close(committed)
	b.ReportAllocs()
	for b.Loop() {
		f := flushing{began: time.Now()}
		mu.Lock()
		f.blocked = d.pipe.blocking.until(f.began)
		mu.Unlock()
		last := batch{committed: committed}
		last.stamps.start(&d.pipe.blocking)
		last.stamps.encode()
		last.stamps.uploaded = time.Now()
		last.stamps.turn = time.Now()
		d.splitFlush(&f, &last)
		d.counters.flushWaits.note(&f.waits)
	}
}
