package model

import "fmt"

// PoolBug is a rule of collection that is broken on purpose.
type PoolBug int

// The bugs of the pool model. RestoreUnpinned is what restore did before the model was made.
const (
	NoPoolBug     PoolBug = iota
	ForksIgnored          // forks are not looked at
	RefsFirst             // references and pins are read before heads and checkpoints
	ForkUnchecked         // a fork doesn't read its checkpoint again
	PinLate               // a reader pins what it has read already
	PinsIgnored           // pins are not looked at
	// a restore pins nothing, and only looks at the checkpoint afterwards
	RestoreUnpinned
	CheckpointUnpinned // a checkpoint of a closed disk names a head that may have moved on
	NamingUnswapped    // a writer's name counts although its swap of the head was lost
	NamingUnlooked     // and one whose head it did not look at again
)

// objects are numbered; an object stands for one map version and all that only it reaches.
const (
	noObject   int8 = -1
	everything int8 = 100 // a pin that holds all of a disk
	versions        = 3
	// checkpoints: a is there in the beginning, b is what restore saves, c is a new one
	names = 3
)

// PoolModel is one disk with a checkpoint a of its first version, and those who use it. Each acts
// once but the restore.
type PoolModel struct {
	Fork, Reader, Checkpoint bool
	// the writer writes the name of its map, c, beside its swap of the head
	Naming bool
	// one after the other, from a saving b, then from b saving a, and so on
	Restores int
	OneMark  bool // the collector deletes after one mark
	HeadOnce bool // and reads the head in the beginning of a mark only
	Bug      PoolBug
}

type handles struct {
	head  int8
	ckpts [names]int8
	child int8 // what the fork's head refers to
	ref   bool
	pins  [3]int8 // of the reader, the restore, the checkpoint
}

type poolState struct {
	handles
	ver     uint8 // of the head
	newest  int8  // version that the writer wrote last
	deleted uint8 // bits of objects
	removed uint8 // checkpoints that were removed

	fork, reader, restore, ckpt struct {
		pc  uint8
		obj int8
		ver uint8
	}

	naming struct {
		swapped, named bool
		pc             uint8
		obj            int8
		ver            uint8
	}

	restored uint8

	gcPC  uint8
	found uint8 // bits of objects that the mark under way reached
	tombs uint8 // bits of those that the first mark did not
	root  int8  // the head's when the mark read it
}

const (
	running uint8 = 0
	ok      uint8 = 10
	refused uint8 = 11
)

// Init implements Model.
func (m PoolModel) Init() poolState {
	s := poolState{handles: handles{ckpts: [names]int8{0, noObject, noObject}, child: noObject,
		pins: [3]int8{noObject, noObject, noObject}}}
	s.fork.obj, s.reader.obj, s.restore.obj, s.ckpt.obj, s.naming.obj, s.root = noObject, noObject,
		noObject, noObject, noObject, noObject
	return s
}

// Check implements Model.
func (m PoolModel) Check(s poolState) error {
	gone := func(o int8) bool { return o >= 0 && o < versions && s.deleted&(1<<o) != 0 }
	switch {
	case gone(s.head):
		return fmt.Errorf("the head refers to version %d, which is deleted", s.head)
	case gone(s.ckpts[0]), gone(s.ckpts[1]):
		return fmt.Errorf("a checkpoint refers to a deleted version")
	case (s.ckpt.pc == ok || s.naming.pc == ok) && gone(s.ckpts[2]):
		return fmt.Errorf("a checkpoint that was reported made refers to a deleted version")
	case s.fork.pc == ok && gone(s.child):
		return fmt.Errorf("a fork that was reported made refers to a deleted version")
	case s.reader.pc == ok && gone(s.reader.obj):
		return fmt.Errorf("a reader reads a deleted version")
	}
	return nil
}

// Done implements Model.
func (m PoolModel) Done(poolState) bool { return true } // the collector goes round and round

// Steps implements Model.
func (m PoolModel) Steps(s poolState) []Step[poolState] {
	var out []Step[poolState]
	add := func(name string, f func(*poolState)) {
		n := s
		f(&n)
		if n != s {
			out = append(out, Step[poolState]{name, n})
		}
	}
	if s.newest+1 < versions {
		add("the writer writes a map and moves the head to it",
			func(s *poolState) { s.newest++; s.head = s.newest; s.ver++ })
	}
	for i, name := range []string{"a", "b"} {
		if s.ckpts[i] != noObject {
			add("checkpoint "+name+" is removed",
				func(s *poolState) { s.ckpts[i] = noObject; s.removed |= 1 << i })
		}
	}
	if m.Fork {
		m.forks(s, add)
	}
	if m.Reader {
		m.reads(s, add)
	}
	if int(s.restored) < m.Restores {
		m.restores(s, add)
	}
	if m.Checkpoint {
		m.checkpoints(s, add)
	}
	if m.Naming {
		m.names(s, add)
	}
	m.collects(s, add)
	return out
}

type poolAdder func(name string, f func(*poolState))

// forks: read the checkpoint, write the reference, write the child's head, read the checkpoint
// again.
func (m PoolModel) forks(s poolState, add poolAdder) {
	step := func(name string, f func(*poolState)) {
		add("the fork "+name, func(s *poolState) { s.fork.pc++; f(s) })
	}
	switch s.fork.pc {
	case 0:
		if s.ckpts[0] != noObject {
			step("reads checkpoint a", func(s *poolState) { s.fork.obj = s.ckpts[0] })
		}
	case 1:
		step("registers its child", func(s *poolState) { s.ref = true })
	case 2:
		step("writes its child's head", func(s *poolState) { s.child = s.fork.obj })
	case 3:
		step("reads checkpoint a again", func(s *poolState) {
			s.fork.pc = ok
			if s.ckpts[0] == noObject && m.Bug != ForkUnchecked {
				s.fork.pc = refused
			}
		})
	}
}

// reads: pin everything, read a checkpoint, narrow the pin to it.
func (m PoolModel) reads(s poolState, add poolAdder) {
	step := func(name string, f func(*poolState)) {
		add("the reader "+name, func(s *poolState) { s.reader.pc++; f(s) })
	}
	pc := s.reader.pc
	if m.Bug == PinLate && pc < 2 {
		pc = 1 - pc
	}
	switch pc {
	case 0:
		step("pins everything", func(s *poolState) { s.pins[0] = everything })
	case 1:
		if s.ckpts[0] != noObject {
			step("reads checkpoint a", func(s *poolState) { s.reader.obj = s.ckpts[0] })
		} else {
			step("finds no checkpoint", func(s *poolState) {
				s.reader.pc,
					s.pins[0] = refused, noObject
			})
		}
	case 2:
		step("narrows its pin", func(s *poolState) { s.reader.pc, s.pins[0] = ok, s.reader.obj })
	}
}

// restores: pin everything, read the checkpoint, save the head as another, swap the head, take the
// pin away.
func (m PoolModel) restores(s poolState, add poolAdder) {
	from := s.restored % 2
	name := [2]string{"a", "b"}
	step := func(name string, f func(*poolState)) {
		add("the restore "+name, func(s *poolState) { s.restore.pc++; f(s) })
	}
	end := func(s *poolState) {
		s.restored++
		s.restore.pc, s.restore.obj, s.pins[1] = running, noObject, noObject
	}
	switch s.restore.pc {
	case 0:
		step("pins everything", func(s *poolState) {
			if m.Bug != RestoreUnpinned {
				s.pins[1] = everything
			}
		})
	case 1:
		if s.ckpts[from] == noObject {
			step("finds no checkpoint", end)
		} else {
			step("reads checkpoint "+name[from],
				func(s *poolState) { s.restore.obj = s.ckpts[from] })
		}
	case 2:
		step("reads the head", func(s *poolState) { s.restore.ver = s.ver })
	case 3:
		if s.ver != s.restore.ver {
			step("finds that the head moved", end)
		} else if s.ckpts[1-from] == noObject {
			step("saves the head as checkpoint "+name[1-from],
				func(s *poolState) { s.ckpts[1-from] = s.head })
		}
	case 4:
		if s.ver != s.restore.ver {
			step("loses the swap", end)
		} else {
			step("swaps the head", func(s *poolState) { s.head = s.restore.obj; s.ver++ })
		}
	case 5:
		step("takes its pin away", end)
	}
}

// checkpoints: of a disk whose head may move: read the head, write the checkpoint, read the head
// again.
func (m PoolModel) checkpoints(s poolState, add poolAdder) {
	step := func(name string, f func(*poolState)) {
		add("the checkpointer "+name, func(s *poolState) { s.ckpt.pc++; f(s) })
	}
	switch s.ckpt.pc {
	case 0:
		step("reads the head", func(s *poolState) { s.ckpt.obj, s.ckpt.ver = s.head, s.ver })
	case 1:
		step("writes checkpoint c", func(s *poolState) { s.ckpts[2] = s.ckpt.obj })
	case 2:
		step("reads the head again", func(s *poolState) {
			s.ckpt.pc = ok
			if s.ver != s.ckpt.ver && m.Bug != CheckpointUnpinned {
				s.ckpt.pc, s.ckpts[2] = refused, noObject
			}
		})
	}
}

// names: the writer stores a map, sends its name and the swap of the head at the same time, and
// looks at the head again when it has both answers. Another writer may have come meanwhile.
func (m PoolModel) names(s poolState, add poolAdder) {
	end := func(s *poolState, pc uint8) {
		if s.naming.pc = pc; pc == refused {
			s.ckpts[2] = noObject
		}
	}
	switch n := s.naming; n.pc {
	case running:
		if s.newest+1 < versions {
			add("the naming writer writes a map", func(s *poolState) {
				s.newest++
				s.naming.pc, s.naming.obj, s.naming.ver = 1, s.newest, s.ver
			})
		}
	case 1:
		if !n.named {
			add("its name arrives", func(s *poolState) { s.naming.named, s.ckpts[2] = true, n.obj })
		}
		if !n.swapped && s.ver == n.ver {
			add("its swap arrives", func(s *poolState) {
				s.naming.swapped, s.head = true,
					n.obj
				s.ver++
			})
		}
		if n.named && !n.swapped && s.ver != n.ver {
			add("it finds its swap lost", func(s *poolState) {
				if end(s, refused); m.Bug == NamingUnswapped {
					s.ckpts[2] = n.obj
					end(s, ok)
				}
			})
		}
		if n.named && n.swapped {
			add("it has both answers, and reads the head again", func(s *poolState) {
				if end(s, ok); s.ver != n.ver+1 && m.Bug != NamingUnlooked {
					end(s, refused)
				}
			})
		}
	}
}

type reading struct {
	name string
	f    func(*poolState)
}

// readings is what a mark reads, in its order.
func (m PoolModel) readings() []reading {
	reach := func(s *poolState, o int8) {
		switch {
		case o == everything:
			s.found = 1<<versions - 1
		case o >= 0:
			s.found |= 1 << o
		}
	}
	head := reading{"the head", func(s *poolState) {
		if s.root == noObject || s.head < s.root {
			s.root = s.head
		}
		reach(s, s.head)
	}}
	late := reading{"references and pins", func(s *poolState) {
		if m.Bug != ForksIgnored && s.ref {
			reach(s, s.child)
		}
		for _, p := range s.pins {
			if m.Bug != PinsIgnored {
				reach(s, p)
			}
		}
	}}
	all := []reading{head}
	for i, n := range []string{"a", "b", "c"} {
		all = append(all, reading{"checkpoint " + n, func(s *poolState) { reach(s, s.ckpts[i]) }})
	}
	if m.Bug == RefsFirst {
		all = append([]reading{late}, all...)
	} else {
		all = append(all, late)
	}
	if !m.HeadOnce {
		all = append(all, head)
	}
	return all
}

// collects: mark, mark again, delete one by one what neither found and what is older than the
// head's version; at or after that a map may be in the making.
func (m PoolModel) collects(s poolState, add poolAdder) {
	all := m.readings()
	n, marks := uint8(len(all)), uint8(2)
	if m.OneMark {
		marks = 1
	}
	if pc := s.gcPC; pc < marks*n {
		r := all[pc%n]
		add(fmt.Sprintf("mark %d reads %s", pc/n+1, r.name), func(s *poolState) {
			r.f(s)
			if s.gcPC++; s.gcPC%n == 0 {
				garbage := (uint8(1)<<max(s.root, 0) - 1) &^ s.found &^ s.deleted
				if s.gcPC == n {
					s.tombs = garbage
				} else {
					s.tombs &= garbage
				}
				s.found, s.root = 0, noObject
			}
		})
		return
	}
	for o := range int8(versions) {
		if s.tombs&(1<<o) != 0 {
			add(fmt.Sprintf("the collector deletes version %d", o), func(s *poolState) {
				s.deleted |= 1 << o
				s.tombs &^= 1 << o
			})
		}
	}
	if s.tombs == 0 {
		add("the collector begins anew", func(s *poolState) { s.gcPC = 0 })
	}
}
