package model

import "fmt"

// Bounds of the log model.
const (
	maxWriters = 3
	maxObjects = 2 // of one epoch's log
	maxSlots   = maxObjects + 2
)

// LogBug is a rule of the log that is broken on purpose.
type LogBug int

// The bugs of the log model.
const (
	NoLogBug       LogBug = iota
	NoFence               // recovery ends at a hole without a fence
	FenceCollected        // fences are deleted with the log that is covered by a map
	NoNonce               // any object in the own slot is taken for the own one
	EarlyAck              // acknowledged when sent
	UnorderedAck          // acknowledged when stored, whatever is missing before
	BlindSwap             // the head is put without a condition
	FenceAnywhere         // a fence further on is taken for the end, and the first hole left open
	CleanOpen             // a replaced head counts as closed: nothing is replayed
)

// LogModel is writers of one disk, at most maxWriters. Epochs count from 1; slot 0 is sequence
// number 1.
type LogModel struct {
	Writers     int
	Objects     int // of one writer's log, at most maxObjects
	Checkpoints int // map checkpoints, of all writers together
	Collect     bool
	Bug         LogBug
}

const (
	slotEmpty = iota
	slotFence
	slotObject
)

const (
	idle = iota
	looked
	swapping
	recovering
	serving
	closing
	closed
	fenced
	failed // lost the race for the head; an engine would begin anew, which is another writer here
)

// counts says how many objects of each epoch's log a content has.
type counts [maxWriters]uint8

type logHead struct {
	ver    uint8 // the ETag
	epoch  uint8
	open   bool
	writer int8 // whose write it is: the nonce
	root   counts
	at     uint8 // epoch where replay starts
	seq    uint8
}

type writer struct {
	pc      uint8
	epoch   uint8
	base    logHead // what its attach read, and its swap must match
	saw     logHead // the head as it last knew it
	has     counts  // what its map has
	at, seq uint8   // of recovery
	sent    uint8   // bits of log objects
	stored  uint8   // bits of those that it knows to be stored
	acked   uint8
	fences  uint8 // bits of slots of epoch at that fences were sent to
	ck      bool  // a swap for a map checkpoint was sent
	ckVer   uint8 // what it must match
	ckHas   counts
	ckSeq   uint8
	done    bool // recovered
	found   counts
}

type logState struct {
	head  logHead
	slots [maxWriters][maxSlots]uint8
	w     [maxWriters]writer
	cks   uint8
	acked counts
}

// Init implements Model.
func (m LogModel) Init() logState {
	return logState{head: logHead{ver: 1, writer: -1, at: 1}}
}

// Check implements Model.
func (m LogModel) Check(s logState) error {
	for i := range m.Writers {
		w := &s.w[i]
		if !w.done {
			continue
		}
		for e := range int(w.epoch) - 1 {
			if s.acked[e] > w.found[e] {
				return fmt.Errorf(
					"writer %d recovered %d objects of epoch %d, and %d are acknowledged", i,
					w.found[e], e+1, s.acked[e])
			}
			for j := range m.Writers {
				if v := &s.w[j]; v.done && int(v.epoch)-1 > e && v.found[e] != w.found[e] {
					return fmt.Errorf("writers %d and %d found %d and %d objects of epoch %d", i, j,
						w.found[e], v.found[e], e+1)
				}
			}
		}
	}
	return nil
}

// Done implements Model.
func (m LogModel) Done(s logState) bool {
	for i := range m.Writers {
		if pc := s.w[i].pc; pc < serving || pc == closing {
			return false
		}
	}
	return true
}

// Steps implements Model.
func (m LogModel) Steps(s logState) []Step[logState] {
	var out []Step[logState]
	for i := range m.Writers {
		add := func(name string, f func(s *logState, w *writer)) {
			n := s
			f(&n, &n.w[i])
			if n != s {
				out = append(out, Step[logState]{fmt.Sprintf("writer %d %s", i, name), n})
			}
		}
		m.attach(s, i, add)
		m.recover(s, i, add)
		m.write(s, i, add)
		m.checkpoint(s, i, add)
	}
	if m.Collect {
		out = append(out, m.collect(s)...)
	}
	return out
}

type adder func(name string, f func(s *logState, w *writer))

func (m LogModel) attach(s logState, i int, add adder) {
	w := s.w[i]
	switch w.pc {
	case idle:
		add("reads the head", func(s *logState, w *writer) { w.pc, w.base = looked, s.head })
	case looked:
		add("sends its swap of the head", func(_ *logState, w *writer) {
			w.pc, w.epoch = swapping,
				w.base.epoch+1
		})
	case swapping:
		switch s.head.ver {
		case w.base.ver: // not arrived
		default:
			if s.head.writer == int8(i) {
				add("sees that the head is its own", func(s *logState, w *writer) { m.won(s, w) })
			} else {
				add("sees another's head", func(_ *logState, w *writer) { w.pc = failed })
			}
		}
	}
	// may arrive after its sender's death
	if w.epoch > 0 && (w.base.ver == s.head.ver || m.Bug == BlindSwap && w.pc == swapping) {
		add("'s swap arrives", func(s *logState, w *writer) {
			h := w.base
			h.ver, h.epoch, h.writer = s.head.ver+1, w.epoch, int8(i)
			if !h.open {
				h.at, h.seq = w.epoch, 0
			}
			h.open = true
			s.head = h
		})
	}
}

func (m LogModel) won(s *logState, w *writer) {
	w.pc, w.has, w.at, w.seq = recovering, w.base.root, s.head.at, s.head.seq
	if !w.base.open || m.Bug == CleanOpen {
		w.at, w.seq = w.epoch, 0
	}
	w.saw = s.head
	m.end(w)
}

// end ends a recovery that has come to the own epoch.
func (m LogModel) end(w *writer) {
	w.fences = 0
	if w.at >= w.epoch {
		w.pc, w.done, w.found = serving, true, w.has
	}
}

func (m LogModel) recover(s logState, i int, add adder) {
	w := s.w[i]
	if w.at > 0 && w.fences != 0 {
		// sent and not decided yet; what is sent for an earlier epoch finds it ended
		for q := range maxSlots {
			if w.fences&(1<<q) != 0 && s.slots[w.at-1][q] == slotEmpty {
				add(fmt.Sprintf("'s fence arrives at %d/%d", w.at, q+1),
					func(s *logState, w *writer) {
						s.slots[w.at-1][q] = slotFence
					})
			}
		}
	}
	if w.pc != recovering {
		return
	}
	next := func(w *writer) { w.at, w.seq = w.at+1, 0; m.end(w) }
	switch q := w.seq; s.slots[w.at-1][q] {
	case slotObject:
		add(fmt.Sprintf("replays %d/%d", w.at, q+1), func(_ *logState, w *writer) {
			w.has[w.at-1], w.seq = w.seq+1, w.seq+1
		})
	case slotFence:
		add(fmt.Sprintf("finds the fence at %d/%d", w.at, q+1),
			func(_ *logState, w *writer) { next(w) })
	case slotEmpty:
		if m.Bug == NoFence {
			add("ends at a hole", func(_ *logState, w *writer) { next(w) })
			return
		}
		if m.Bug != FenceAnywhere {
			add(fmt.Sprintf("sends a fence for %d/%d", w.at, q+1),
				func(_ *logState, w *writer) { w.fences |= 1 << q })
		}
		if int(q)+1 < maxSlots {
			add(fmt.Sprintf("sends a far fence for %d/%d", w.at, q+2),
				func(_ *logState, w *writer) { w.fences |= 2 << q })
			if m.Bug == FenceAnywhere && s.slots[w.at-1][q+1] == slotFence {
				add("is content with a far fence", func(_ *logState, w *writer) { next(w) })
			}
		}
	}
}

func (m LogModel) write(s logState, i int, add adder) {
	w := s.w[i]
	for q := range uint8(m.Objects) {
		bit := uint8(1) << q
		if w.pc == serving && w.sent&bit == 0 && w.sent == bit-1 {
			add(fmt.Sprintf("sends log object %d/%d", w.epoch, q+1), func(_ *logState, w *writer) {
				w.sent |= bit
				if m.Bug == EarlyAck {
					w.stored |= bit
				}
			})
		}
		if w.sent&bit == 0 {
			continue
		}
		slot := s.slots[w.epoch-1][q]
		if slot == slotEmpty {
			add(fmt.Sprintf("'s log object %d/%d arrives", w.epoch, q+1),
				func(s *logState, w *writer) {
					s.slots[w.epoch-1][q] = slotObject
				})
		}
		if w.pc != serving && w.pc != closing || w.stored&bit != 0 || slot == slotEmpty {
			continue
		}
		add(fmt.Sprintf("hears of %d/%d", w.epoch, q+1), func(_ *logState, w *writer) {
			if slot == slotObject || m.Bug == NoNonce {
				w.stored |= bit
			} else {
				w.pc = fenced
			}
		})
	}
	if q := w.acked; (w.pc == serving || w.pc == closing) && q < maxObjects &&
		w.stored&(1<<q) != 0 {
		add(fmt.Sprintf("acknowledges %d/%d", w.epoch, q+1),
			func(s *logState, w *writer) { m.ack(s, w, q+1) })
	}
	if m.Bug == UnorderedAck && w.pc == serving && w.stored&2 != 0 && w.acked == 0 {
		add("acknowledges the second first", func(s *logState, w *writer) { m.ack(s, w, 2) })
	}
}

func (m LogModel) ack(s *logState, w *writer, n uint8) {
	w.acked, w.has[w.epoch-1], s.acked[w.epoch-1] = n, n, n
}

// checkpoint is map checkpoints and the clean close, which swap the head too.
func (m LogModel) checkpoint(s logState, i int, add adder) {
	w := s.w[i]
	send := func(_ *logState, w *writer) {
		w.ck, w.ckVer, w.ckHas, w.ckSeq = true, w.saw.ver,
			w.has, w.acked
	}
	if w.pc == serving && !w.ck {
		if int(s.cks) < m.Checkpoints && w.has != w.saw.root {
			add("sends a map checkpoint", func(s *logState, w *writer) { s.cks++; send(s, w) })
		}
		if w.sent == 1<<w.acked-1 {
			add("begins to close", func(s *logState, w *writer) { w.pc = closing; send(s, w) })
		}
	}
	if !w.ck {
		return
	}
	mine := s.head.writer == int8(i) && s.head.epoch == w.epoch
	if s.head.ver == w.ckVer && mine || m.Bug == BlindSwap && w.pc != closed {
		add("'s map checkpoint arrives", func(s *logState, w *writer) {
			h := s.head
			if m.Bug == BlindSwap {
				h = w.saw
				h.writer = int8(i)
			}
			h.ver, h.root, h.at, h.seq, h.open = s.head.ver+1, w.ckHas, w.epoch, w.ckSeq,
				w.pc != closing
			s.head = h
		})
	}
	switch {
	case w.pc != serving && w.pc != closing || s.head.ver == w.ckVer:
	case mine:
		add("hears of its map checkpoint", func(s *logState, w *writer) {
			w.saw, w.ck = s.head, false
			if w.pc == closing && !s.head.open {
				w.pc = closed
			}
		})
	default:
		add("sees another's head", func(_ *logState, w *writer) { w.pc = fenced })
	}
}

// collect deletes log objects that a map covers.
func (m LogModel) collect(s logState) (out []Step[logState]) {
	for e := range maxWriters {
		for q := range maxSlots {
			covered := uint8(e+1) < s.head.at || uint8(e+1) == s.head.at && uint8(q) < s.head.seq
			if k := s.slots[e][q]; covered &&
				(k == slotObject || k == slotFence && m.Bug == FenceCollected) {
				n := s
				n.slots[e][q] = slotEmpty
				out = append(out, Step[logState]{fmt.Sprintf("the collector deletes %d/%d",
					e+1, q+1), n})
			}
		}
	}
	return out
}
