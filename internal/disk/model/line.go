package model

import "fmt"

// LineBug is a rule of destroying disks, or of collecting what they leave, that is broken on
// purpose.
type LineBug int

// The bugs of the line model. LivingOnly is what a collector did before the simulation found it.
const (
	NoLineBug LineBug = iota
	// a reference is garbage when its child has no head, whatever else needs the child
	LivingOnly
	DestroyIgnoresRefs // a Destroy doesn't look for forks
	DestroyIgnoresPins // nor for readers
	DestroyLooksFirst  // a Destroy looks for them before it removes the checkpoints
	LineForkUnchecked  // a fork doesn't read its checkpoint again
	LineOneMark        // the collector deletes after one mark
	SlowFork           // a fork that took longer than a grace counts
)

// LineModel is a line of forks, a → b → c, that are made, read and destroyed beside a collector.
// All that any of them needs is one object of a.
type LineModel struct {
	Reader int // whose checkpoint is read: 0 nobody's, 1 a's, 2 b's
	Bug    LineBug
}

const (
	diskA, diskB, diskC = 0, 1, 2
	refB, refC          = 0, 1 // at a and at b
)

// what a pin holds
const (
	unpinned uint8 = iota
	pinnedAll
	pinnedMap
)

type lineState struct {
	heads, ckpts [3]bool // of ckpts, those of a and b
	refs         [2]bool
	pin          uint8 // of the reader
	gone         bool  // the object

	fork    [3]uint8 // of b and c: steps of the fork
	late    [3]bool  // a mark has found its reference without a head: it takes longer than a grace
	destroy [3]uint8 // steps
	users   [3]bool  // what each Destroy has seen
	reader  uint8

	gcPC  uint8
	found lineMark // by the mark under way
	tombs lineMark // what it is after the first: true is garbage
}

// lineMark is what a mark knows of the object and of both references.
type lineMark struct {
	object bool
	refs   [2]bool
}

// Init implements Model.
func (m LineModel) Init() lineState {
	s := lineState{}
	s.heads[diskA], s.ckpts[diskA] = true, true
	return s
}

// Check implements Model.
func (m LineModel) Check(s lineState) error {
	for i, name := range []string{"a", "b", "c"} {
		if s.gone && (i == diskA || s.fork[i] == ok) && s.destroy[i] == 0 {
			return fmt.Errorf("%s has lost what it refers to", name)
		}
	}
	if s.gone && s.reader == ok && s.pin != unpinned {
		return fmt.Errorf("a reader has lost what it reads")
	}
	return nil
}

// Done implements Model.
func (m LineModel) Done(lineState) bool { return true }

type lineAdder func(name string, f func(*lineState))

// Steps implements Model.
func (m LineModel) Steps(s lineState) []Step[lineState] {
	var out []Step[lineState]
	add := func(name string, f func(*lineState)) {
		n := s
		f(&n)
		if n != s {
			out = append(out, Step[lineState]{name, n})
		}
	}
	m.forks(s, diskB, add)
	m.forks(s, diskC, add)
	if s.fork[diskB] == ok && s.destroy[diskB] == 0 {
		add("b gets a checkpoint", func(s *lineState) { s.ckpts[diskB] = true })
	}
	if m.Reader > 0 {
		m.reads(s, add)
	}
	for d := range 3 {
		if s.destroy[d] > 0 || d == diskA || s.fork[d] == ok {
			m.destroys(s, d, add)
		}
	}
	m.collects(s, add)
	return out
}

// forks makes a disk from the checkpoint of the one before it.
func (m LineModel) forks(s lineState, d int, add lineAdder) {
	from, ref := d-1, d-1
	step := func(what string, f func(*lineState)) {
		add(fmt.Sprintf("the fork of %c %s", 'a'+d, what), func(s *lineState) { s.fork[d]++; f(s) })
	}
	switch s.fork[d] {
	case 0:
		if s.ckpts[from] {
			step("reads its checkpoint", func(*lineState) {})
		}
	case 1:
		step("registers it", func(s *lineState) { s.refs[ref] = true })
	case 2:
		step("writes its head", func(s *lineState) { s.heads[d] = true })
	case 3:
		step("reads its checkpoint again", func(s *lineState) {
			if !s.ckpts[from] && m.Bug != LineForkUnchecked {
				s.fork[d], s.heads[d] = refused, false
			}
		})
	case 4:
		step("sees how long it took", func(s *lineState) {
			s.fork[d] = ok
			if s.late[d] && m.Bug != SlowFork {
				s.fork[d], s.heads[d] = refused, false
			}
		})
	}
}

// reads pins everything of a disk, reads its checkpoint, narrows the pin to that, and ends.
func (m LineModel) reads(s lineState, add lineAdder) {
	d := m.Reader - 1
	switch s.reader {
	case 0:
		if s.ckpts[d] {
			add("the reader pins everything", func(s *lineState) { s.reader, s.pin = 1, pinnedAll })
		}
	case 1:
		add("the reader reads the checkpoint", func(s *lineState) {
			if s.reader = 2; !s.ckpts[d] {
				s.reader, s.pin = refused, unpinned
			}
		})
	case 2:
		add("the reader narrows its pin", func(s *lineState) { s.reader, s.pin = ok, pinnedMap })
	case ok:
		add("the reader ends", func(s *lineState) { s.pin = unpinned })
	}
}

// destroys removes the head, then the checkpoint, looks for references and for pins, and removes
// the rest if there was neither.
func (m LineModel) destroys(s lineState, d int, add lineAdder) {
	step := func(what string, f func(*lineState)) {
		add(fmt.Sprintf("the Destroy of %c %s", 'a'+d, what),
			func(s *lineState) { s.destroy[d]++; f(s) })
	}
	order := []uint8{0, 1, 2, 3}
	if m.Bug == DestroyLooksFirst {
		order = []uint8{2, 3, 0, 1}
	}
	pc := s.destroy[d]
	if pc < 4 {
		pc = order[pc]
	}
	switch pc {
	case 0:
		step("removes the head", func(s *lineState) { s.heads[d] = false })
	case 1:
		step("removes the checkpoint", func(s *lineState) { s.ckpts[d] = false })
	case 2:
		step("looks for forks", func(s *lineState) {
			s.users[d] = s.users[d] || d < diskC && s.refs[d] && m.Bug != DestroyIgnoresRefs
		})
	case 3:
		step("looks for pins", func(s *lineState) {
			s.users[d] = s.users[d] || d == m.Reader-1 && s.pin != unpinned &&
				m.Bug != DestroyIgnoresPins
		})
	case 4:
		if d == diskA {
			step("ends", func(s *lineState) { s.gone = s.gone || !s.users[d] })
		}
	}
}
