package disk

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Stall tells of a store that doesn't do what a disk waits for.
type Stall struct {
	// LogStore is the URL of the log store, if it is that one; empty: it is the store of the disk itself.
	LogStore string `json:"log_store,omitempty"`
	// Since is when what waits longest began to wait, or when the store last did something of its kind, reads or
	// writes, whichever is later.
	Since     time.Time `json:"since"`
	Operation string    `json:"operation"` // such as "write log/3/17"
	// Kind and Reason are of the newest answer: Unavailable, where there is none; Exhausted, if the store is full;
	// Denied, if it refuses us.
	Kind   errs.Kind `json:"kind"`
	Reason string    `json:"reason"`
	Remedy string    `json:"remedy"`
	// HeldSince is since when some request of the device's user waits for the store; zero: none does.
	HeldSince time.Time `json:"held_since,omitzero"`
}

// direction is what a store may do and not do by itself: a full one can be read, and of two stores one may be away.
type direction int

const (
	toRead direction = iota
	toWrite
	secondStore // and the same two of the log store
	directions  = 2 * secondStore
)

func (d direction) reads() bool { return d%secondStore == toRead }

func (d direction) ofLog() bool { return d >= secondStore }

// request is something asked of the store, over all its attempts.
type request struct {
	dir   direction
	what  string
	key   string
	began time.Time
	err   error // of the newest attempt
	shows bool  // it only looks whether something was done: that it ends proves nothing
}

// monitor notices when the store stops doing what it is asked for, and when it begins again. It is told of every
// request. It makes none itself, but for probe: that asks for something small, when a stall was left behind by
// requests that have been given up, and nobody else would notice its end. Safe for concurrent use.
type monitor struct {
	after time.Duration
	disk  string
	log   *slog.Logger
	probe func(ofLog bool)

	mu        sync.Mutex
	logURL    string // of the log store, if there is one
	pending   map[*request]struct{}
	good      [directions]time.Time // when the store last did one
	recovered time.Time             // when the last stall ended: what waited until then was a part of it
	stall     *Stall                // immutable; but for HeldSince, which is added when it is asked for
	dir       direction             // of the stall
	changed   chan struct{}         // closed when stall changes
	held      int
	heldSince time.Time
	timer     *time.Timer // nil: nothing waits
	stopped   bool
}

func newMonitor(after time.Duration, disk string, log *slog.Logger) *monitor {
	return &monitor{after: after, disk: disk, log: log, probe: func(bool) {}, pending: map[*request]struct{}{}, changed: make(chan struct{})}
}

// nameLog says where the log store is.
func (m *monitor) nameLog(url string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logURL = url
}

// begin notes a request. A nil monitor notes nothing.
func (m *monitor) begin(dir direction, what, key string) *request {
	r := &request{dir: dir, what: what, key: key, began: time.Now()}
	if m == nil {
		return r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending[r] = struct{}{}
	m.armLocked(m.after)
	return r
}

// failed notes an attempt that did nothing.
func (m *monitor) failed(r *request, err error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.err = err
}

// lost notes that the store has acknowledged an object and did not have it, or a part of it only, and that it was written
// again.
func (m *monitor) lost(key, what string) {
	if m != nil {
		m.log.Error("the store did not keep what it had acknowledged; it was written again", "disk", m.disk, "object", key, "it", what)
	}
}

// end notes that a request is over: done by the store, or given up.
func (m *monitor) end(r *request, done bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	delete(m.pending, r)
	if done = done && !r.shows; done {
		m.good[r.dir] = time.Now()
	}
	var over *Stall
	if done && m.stall != nil && (r.dir == m.dir || r.dir.ofLog() == m.dir.ofLog() && m.oldestLocked(m.dir) == nil) {
		over, m.recovered = m.stall, time.Now()
		m.setLocked(nil)
	}
	m.mu.Unlock()
	if over != nil {
		m.log.Warn("the store answers again", "disk", m.disk, "log_store", over.LogStore, "stalled_ms", time.Since(over.Since).Milliseconds())
	}
}

// hold notes that a request of the device's user waits for the store; the function it returns, that it doesn't any
// more.
func (m *monitor) hold() func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held++; m.held == 1 {
		m.heldSince = time.Now()
	}
	return m.release
}

func (m *monitor) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held--
}

// now returns the stall, nil if there is none, and a channel that is closed when one begins or ends.
func (m *monitor) now() (*Stall, <-chan struct{}) {
	if m == nil {
		return nil, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stall == nil {
		return nil, m.changed
	}
	s := *m.stall
	if m.held > 0 {
		s.HeldSince = m.heldSince
		if s.HeldSince.Before(s.Since) {
			s.HeldSince = s.Since // the one that began it may be long done
		}
	}
	if r := m.oldestLocked(m.dir); r != nil && r.err != nil {
		s.explain(r.err)
	}
	return &s, m.changed
}

// stop ends the watching. A stall stays as it is.
func (m *monitor) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	if m.timer != nil {
		m.timer.Stop()
	}
}

func (m *monitor) setLocked(s *Stall) {
	m.stall = s
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *monitor) armLocked(d time.Duration) {
	if m.timer == nil && !m.stopped {
		m.timer = time.AfterFunc(d, m.look)
	}
}

// look is called some times per stall limit while anything waits.
func (m *monitor) look() {
	m.mu.Lock()
	m.timer = nil
	probe, ofLog := m.stall != nil && !m.waitsForLocked(m.dir.ofLog()), m.dir.ofLog()
	var began *Stall
	if m.stall == nil {
		began = m.noticeLocked()
	}
	if len(m.pending) > 0 || m.stall != nil {
		m.armLocked(max(m.after/4, time.Millisecond))
	}
	m.mu.Unlock()
	if began != nil {
		m.log.Warn("the store has stalled", "disk", m.disk, "log_store", began.LogStore, "operation", began.Operation, "since", began.Since, "reason", began.Reason, "remedy", began.Remedy)
	}
	if probe {
		m.probe(ofLog)
	}
}

// waitsForLocked reports whether anything waits for the log store, or for the disk's own.
func (m *monitor) waitsForLocked(log bool) bool {
	for r := range m.pending {
		if r.dir.ofLog() == log {
			return true
		}
	}
	return false
}

// noticeLocked begins a stall if there is one.
func (m *monitor) noticeLocked() *Stall {
	for dir := range directions {
		r := m.oldestLocked(dir)
		if r == nil {
			continue
		}
		since := r.began
		for _, at := range []time.Time{m.good[dir], m.recovered} {
			if at.After(since) {
				since = at
			}
		}
		if time.Since(since) < m.after {
			continue
		}
		s := &Stall{Since: since, Operation: r.what + " " + r.key}
		if dir.ofLog() {
			s.LogStore = m.logURL
		}
		s.explain(r.err)
		m.dir = dir
		m.setLocked(s)
		return s
	}
	return nil
}

func (m *monitor) oldestLocked(dir direction) *request {
	var oldest *request
	for r := range m.pending {
		if r.dir == dir && (oldest == nil || r.began.Before(oldest.began)) {
			oldest = r
		}
	}
	return oldest
}

// place names the store.
func (s *Stall) place() string {
	if s.LogStore != "" {
		return "the log store " + s.LogStore
	}
	return "the store"
}

// explain names what is wrong with the store, and what to do about it. A nil error: it doesn't answer.
func (s *Stall) explain(err error) {
	s.Kind, s.Reason, s.Remedy = errs.Unavailable, "no answer", "check the object store and the way to it"
	if s.LogStore != "" {
		s.Reason, s.Remedy = s.place()+": no answer", "check the log store "+s.LogStore+" and the way to it"
	}
	if err == nil {
		return
	}
	s.Kind, s.Reason = errs.KindOf(err), err.Error()
	switch s.Kind {
	case errs.Exhausted:
		s.Reason, s.Remedy = s.place()+" is full: "+s.Reason, "make room in the object store, or raise its quota"
	case errs.Denied:
		s.Reason, s.Remedy = s.place()+" refuses access: "+s.Reason, "correct the store's credentials or its policy"
	}
	if s.LogStore != "" && s.Kind == errs.Unavailable {
		s.Reason = s.place() + ": " + s.Reason
	}
	if remedy := errs.RemedyOf(err); remedy != "" {
		s.Remedy = remedy
	}
}

// Stalled returns what the store has not done for StallAfter or longer although it was asked to, nil if it does
// what it is asked for, and a channel that is closed when that changes. Meanwhile writes are kept in memory, up to
// DirtyBytes, and whoever needs the store waits, up to StallTimeout. It ends by itself.
func (d *Disk) Stalled() (*Stall, <-chan struct{}) { return d.o.watch.now() }

// HoldIO says that nobody would notice however long a request takes, as when all who use the device are frozen:
// while it is on, the time that requests wait for the store doesn't count towards StallTimeout, and none fails
// because of it. It may be said any number of times.
func (d *Disk) HoldIO(on bool) { d.o.patience.hold(on) }

// probeStore asks for the head, or for the identity of the log, in the background, which ends a stall if it is answered.
func (d *Disk) probeStore(ofLog bool) {
	d.tasks.spawn(func(ctx context.Context) {
		if ofLog {
			_, _ = d.lo.get(ctx, identityKey(d.second.uid), blob.Range{Offset: 0, Length: 1})
			return
		}
		_ = d.revalidate(ctx) // it has stopped the disk, if that was to be done
	})
}
