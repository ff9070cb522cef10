package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Stall tells of a store that doesn't complete what a disk waits for.
type Stall struct {
	// LogStore is the URL of the log store, if that has stalled. Empty: the disk's own store has.
	LogStore string `json:"log_store,omitempty"`
	// Since is when the oldest pending request began, or when the store last completed one of its
	// kind, reads or writes, whichever is later.
	Since     time.Time `json:"since"`
	Operation string    `json:"operation"` // such as "write log/3/17"
	// Kind and Reason are of the newest answer: Unavailable if there is none, Exhausted if the
	// store is full, Denied if it refuses access.
	Kind   errs.Kind `json:"kind"`
	Reason string    `json:"reason"`
	Remedy string    `json:"remedy"`
	// HeldSince is since when some request of the device's user waits for the store. Zero: none
	// does.
	HeldSince time.Time `json:"held_since,omitzero"`
}

// direction tells requests apart that may fail each by itself: a full store can be read, and of two
// stores one may be away.
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
	err   error  // of the newest attempt
	shows bool   // it only checks whether something was done: that it ends proves nothing
	spent *Spent // nil: nobody wants to know
}

// monitor notices when the store stops completing requests, and when it begins again. It is told of
// every request, and makes none itself. When a stall was left behind by requests that have been
// given up, it calls probe, as nobody else would notice the end. A nil monitor notes nothing. Safe
// for concurrent use; no I/O and no callback happens under its lock.
type monitor struct {
	after time.Duration
	disk  string
	log   *slog.Logger
	probe func(ofLog bool)

	mu      sync.Mutex
	logURL  string // of the log store, if there is one
	pending map[*request]struct{}
	good    [directions]time.Time // when the store last completed one
	// when the last stall ended: what waited until then was a part of it
	recovered time.Time
	stall     *Stall        // immutable; HeldSince is set in copies of it
	dir       direction     // of the stall
	changed   chan struct{} // closed when stall changes
	held      int
	heldSince time.Time
	timer     *time.Timer // nil: nothing waits
	stopped   bool
}

func newMonitor(
	after time.Duration, disk string, log *slog.Logger, probe func(ofLog bool),
) *monitor {
	return &monitor{after: after, disk: disk, log: log, probe: probe,
		pending: map[*request]struct{}{}, changed: make(chan struct{})}
}

// nameLog notes where the log store is.
func (m *monitor) nameLog(url string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logURL = url
}

// begin notes a request, which end must be told of.
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

// lost logs that the store did not have what it had acknowledged, or had a part of it only. It was
// written again.
func (m *monitor) lost(key, what string) {
	if m != nil {
		m.log.Error("the store did not keep what it had acknowledged; it was written again",
			"disk", m.disk, "object", key, "it", what)
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
	ends := r.dir == m.dir || r.dir.ofLog() == m.dir.ofLog() && m.oldestLocked(m.dir) == nil
	if done && m.stall != nil && ends {
		over, m.recovered = m.stall, time.Now()
		m.setLocked(nil)
	}
	m.mu.Unlock()
	if over != nil {
		m.log.Warn("the store answers again", "disk", m.disk, "log_store", over.LogStore,
			"stalled_ms", time.Since(over.Since).Milliseconds())
	}
}

// hold notes that a request of the device's user waits for the store, until the function that it
// returns is called.
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

// now returns the stall, nil if there is none, and a channel that is closed when one begins or
// ends.
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
		m.timer = time.AfterFunc(d, m.check)
	}
}

// check begins a stall if there is one. It runs several times per stall limit while anything waits.
func (m *monitor) check() {
	m.mu.Lock()
	m.timer = nil
	ofLog := m.dir.ofLog()
	probe := m.stall != nil && !m.waitsForLocked(ofLog)
	var began *Stall
	if m.stall == nil {
		began = m.noticeLocked()
	}
	if len(m.pending) > 0 || m.stall != nil {
		m.armLocked(max(m.after/4, time.Millisecond))
	}
	m.mu.Unlock()
	if began != nil {
		m.log.Warn("the store has stalled", "disk", m.disk, "log_store", began.LogStore,
			"operation", began.Operation, "since", began.Since,
			"reason", began.Reason, "remedy", began.Remedy)
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

// explain sets what is wrong with the store, and what to do about it. A nil error: it doesn't
// answer.
func (s *Stall) explain(err error) {
	s.Kind, s.Reason = errs.Unavailable, "no answer"
	s.Remedy = "check the object store and the way to it"
	if s.LogStore != "" {
		s.Reason = s.place() + ": no answer"
		s.Remedy = "check the log store " + s.LogStore + " and the way to it"
	}
	if err == nil {
		return
	}
	s.Kind, s.Reason = errs.KindOf(err), err.Error()
	switch s.Kind {
	case errs.Exhausted:
		s.Reason = s.place() + " takes no more: " + s.Reason
		s.Remedy = "make room in the object store, or raise its quota"
	case errs.Denied:
		s.Reason = s.place() + " refuses access: " + s.Reason
		s.Remedy = "correct the store's credentials or its policy"
	}
	if s.LogStore != "" && s.Kind == errs.Unavailable {
		s.Reason = s.place() + ": " + s.Reason
	}
	if remedy := errs.RemedyOf(err); remedy != "" {
		s.Remedy = remedy
	}
}

// Stalled returns what the store has not completed for the time that Watch was given, or nil if it
// does what it is asked for. The channel is closed when that changes. A stall ends by itself.
func (c *Client) Stalled() (*Stall, <-chan struct{}) { return c.monitor.now() }

// StopWatching ends the monitoring. A stall stays as it is.
func (c *Client) StopWatching() { c.monitor.stop() }

// Waiting notes that a request of the device's user waits for the store, until the function that it
// returns is called. Only a client that is watched may be told.
func (c *Client) Waiting() (done func()) { return c.monitor.hold() }

// HoldIO(true) suspends the bound of Within, and of requests: no time counts while every user of
// the device is frozen. Idempotent.
func (c *Client) HoldIO(on bool) { c.waiting.hold(on) }

// Within returns a context that ends when the store was waited for that long. With a bound below
// zero it never does. See WaitedOut.
func (c *Client) Within(
	ctx context.Context, bound time.Duration,
) (context.Context, context.CancelFunc) {
	return c.waiting.within(ctx, bound)
}
