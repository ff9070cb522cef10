package disk

import (
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/store"
)

// Wait names one thing that a flush may wait for. At any moment a flush waits for one of them, so
// that they add up to the whole flush.
type Wait string

// What a flush waits for.
const (
	// WaitQueue is for its turn. Its log object can't be sent, because all uploads are taken, or
	// the store has yet to show what it acknowledged. Or it is stored, and an earlier one isn't.
	// In mode bounded it is also for writes that are older than the bound.
	WaitQueue Wait = "queue"
	// WaitMap is for a map checkpoint: so much log is newer than the newest map that no more may be
	// written, or a crash would take too long to recover from.
	WaitMap Wait = "map"
	// WaitEncode is for this host's processor: the log object is compressed and sealed, and, once
	// it is stored, put into the map. It includes what the scheduler takes for that.
	WaitEncode Wait = "encode"
	// WaitPace is because the store asked for fewer requests: until the time that it named, between
	// attempts that it refused so, and while fewer uploads may run than are configured.
	WaitPace Wait = "pace"
	// WaitGateway is on the way to the worker's store gateway and in it, without what that waits
	// for the store. A disk that reaches its store by itself has none.
	WaitGateway Wait = "gateway"
	// WaitStore is for the store: until it has answered, with attempts that failed and the pauses
	// after them.
	WaitStore Wait = "store"
	// WaitJournal is for the local journal of a disk of mode bounded.
	WaitJournal Wait = "journal"
)

// Waits returns all of them, in the order in which a flush goes through them.
func Waits() [waitKinds]Wait {
	return [...]Wait{inQueue: WaitQueue, inMap: WaitMap, inEncode: WaitEncode, inPace: WaitPace,
		inGateway: WaitGateway, inStore: WaitStore, inJournal: WaitJournal}
}

// Indexes of Waits.
const (
	inQueue = iota
	inMap
	inEncode
	inPace
	inGateway
	inStore
	inJournal
	waitKinds
)

// waits is how long each thing was waited for.
type waits [waitKinds]time.Duration

// Waited counts what flushes waited for one thing. A flush that didn't wait for it counts with
// zero; one that found nothing to write doesn't count.
type Waited struct {
	Sum   time.Duration `json:"sum_ns"`
	Times Histogram     `json:"times"`
}

// waited is a Waited that is counted into.
type waited struct {
	nanos atomic.Int64
	times latency
}

func (w *waited) note(took time.Duration) {
	w.nanos.Add(int64(max(0, took)))
	w.times.note(took)
}

func (w *waited) load() Waited {
	return Waited{Sum: time.Duration(w.nanos.Load()), Times: w.times.load()}
}

// flushWaits counts the waits of all flushes.
type flushWaits [waitKinds]waited

func (f *flushWaits) note(w *waits) {
	for i := range w {
		f[i].note(w[i])
	}
}

func (f *flushWaits) load() map[Wait]Waited {
	all := make(map[Wait]Waited, waitKinds)
	for i, name := range Waits() {
		all[name] = f[i].load()
	}
	return all
}

// blocking is why the next upload doesn't begin, and for how long it was so for each reason. The
// reason means nothing while no upload is wanted. The pipeline's lock guards it.
type blocking struct {
	reason int // inQueue, inMap or inPace
	since  time.Time
	before waits // for each reason, until since
}

// is notes the reason from now on.
func (b *blocking) is(reason int) {
	if reason == b.reason {
		return
	}
	now := time.Now()
	b.before, b.reason, b.since = b.until(now), reason, now
}

// until returns for how long it was so for each reason until now. Only differences mean anything.
func (b *blocking) until(now time.Time) waits {
	w := b.before
	w[b.reason] += now.Sub(b.since)
	return w
}

// stamps are when a batch got to where, zero where it isn't yet. The pipeline's lock guards them
// until the batch is committed, and nothing changes after that. What is atomic is written beside.
type stamps struct {
	started  time.Time // an upload is for it
	blocked  waits     // blocking.until(started)
	encoded  atomic.Int64
	spent    store.Spent
	uploaded time.Time
	turn     time.Time // all before it are committed
}

// start notes that the batch's upload begins.
func (s *stamps) start(b *blocking) {
	s.started = time.Now()
	s.blocked = b.until(s.started)
}

// encode notes that the log object is made; zero means that it is not.
func (s *stamps) encode() { s.encoded.Store(int64(max(1, time.Since(s.started)))) }

// flushing is one flush under way.
type flushing struct {
	began   time.Time // it waits since
	waits   waits     // before that
	waited  bool      // it had something to write
	blocked waits     // blocking.until(began)
}

// lap adds the time since the flush began, or since the last lap, to one wait.
func (f *flushing) lap(kind int) {
	now := time.Now()
	f.waits[kind] += now.Sub(f.began)
	f.began, f.waited = now, true
}

// lapIfWaited is lap of a flush that has waited for something before.
func (f *flushing) lapIfWaited(kind int) {
	if f.waited {
		f.lap(kind)
	}
}

// split adds the time from began until now to what a batch waited for in it. blocked is
// blocking.until the batch was started, or until now.
func (f *flushing) split(s *stamps, blocked waits, now time.Time) {
	f.waited = true
	started := orNow(s.started, now)
	if f.began.Before(started) {
		for i := range blocked {
			f.waits[i] += blocked[i] - f.blocked[i]
		}
	}
	uploaded := orNow(s.uploaded, now)
	encoded := uploaded
	if n := s.encoded.Load(); n > 0 {
		encoded = started.Add(time.Duration(n))
	}
	f.waits[inEncode] += f.within(started, encoded)
	f.splitUpload(s, uploaded.Sub(encoded), f.within(encoded, uploaded))
	turn := orNow(s.turn, now)
	f.waits[inQueue] += f.within(uploaded, turn)
	f.waits[inEncode] += f.within(turn, now)
}

// splitUpload splits the part of an upload that the flush waited for as the whole upload is. What
// nobody has told is the store's: an attempt is told when it ends.
func (f *flushing) splitUpload(s *stamps, whole, part time.Duration) {
	if whole <= 0 || part <= 0 {
		return
	}
	share := float64(part) / float64(whole)
	pace := min(whole, s.spent.Pace())
	gateway := min(whole-pace, s.spent.Gateway())
	f.waits[inPace] += time.Duration(share * float64(pace))
	f.waits[inGateway] += time.Duration(share * float64(gateway))
	f.waits[inStore] += time.Duration(share * float64(whole-pace-gateway))
}

// within returns how much of the time between two moments is after the flush began.
func (f *flushing) within(from, to time.Time) time.Duration {
	if from.Before(f.began) {
		from = f.began
	}
	return max(0, to.Sub(from))
}

func orNow(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t
}

// splitFlush adds to a flush what it waited for until now, which was for a batch.
func (d *Disk) splitFlush(f *flushing, b *batch) {
	if b.isCommitted() { // nobody changes it any more
		f.split(&b.stamps, b.stamps.blocked, time.Now())
		return
	}
	d.pipe.mu.RLock()
	defer d.pipe.mu.RUnlock()
	now, blocked := time.Now(), b.stamps.blocked
	if b.stamps.started.IsZero() {
		blocked = d.pipe.blocking.until(now)
	}
	f.split(&b.stamps, blocked, now)
}

// noteFlush counts a flush that has ended, well or not.
func (d *Disk) noteFlush(began time.Time, f *flushing) {
	d.counters.flushTimes.note(time.Since(began))
	if f.waited {
		d.counters.flushWaits.note(&f.waits)
	}
}
