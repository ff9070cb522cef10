package model

import "fmt"

// collects makes two marks, each of several readings, and deletes what both found to be garbage.
func (m LineModel) collects(s lineState, add lineAdder) {
	readings := m.readings()
	n, marks := uint8(len(readings)), uint8(2)
	if m.Bug == LineOneMark {
		marks = 1
	}
	if s.gcPC < marks*n {
		r := readings[s.gcPC%n]
		add(fmt.Sprintf("mark %d reads %s", s.gcPC/n+1, r.name), func(s *lineState) {
			r.f(s)
			if s.gcPC++; s.gcPC%n == 0 {
				m.endMark(s, s.gcPC == n)
			}
		})
		return
	}
	if s.tombs.object {
		add("the collector deletes the object",
			func(s *lineState) { s.gone, s.tombs.object = true, false })
	}
	for i, name := range []string{"b", "c"} {
		if s.tombs.refs[i] {
			add("the collector looks for "+name+"'s head, and deletes its reference",
				func(s *lineState) {
					s.refs[i], s.tombs.refs[i] = s.heads[i+1], false
				})
		}
	}
	if s.tombs == (lineMark{}) {
		add("the collector begins anew", func(s *lineState) { s.gcPC = 0 })
	}
}

// endMark notes what a mark did not find, beside what the one before did not.
func (m LineModel) endMark(s *lineState, first bool) {
	g := lineMark{object: !s.found.object}
	for i := range g.refs {
		g.refs[i] = s.refs[i] && !s.found.refs[i]
	}
	if first {
		s.tombs = g
		for i := range g.refs {
			s.late[i+1] = s.late[i+1] || g.refs[i] && s.fork[i+1] < ok
		}
	} else {
		s.tombs.object = s.tombs.object && g.object
		for i := range g.refs {
			s.tombs.refs[i] = s.tombs.refs[i] && g.refs[i]
		}
	}
	s.found = lineMark{}
}

type lineReading struct {
	name string
	f    func(*lineState)
}

// needs notes what something needs whose lineage begins with a disk.
func (m LineModel) needs(s *lineState, d int, living bool) {
	s.found.object = true
	for i := range d {
		if m.Bug != LivingOnly || living && i == d-1 {
			s.found.refs[i] = true
		}
	}
}

func (m LineModel) readings() []lineReading {
	head := func(d int) lineReading {
		return lineReading{fmt.Sprintf("the head of %c", 'a'+d), func(s *lineState) {
			if s.heads[d] {
				m.needs(s, d, true)
			}
		}}
	}
	ckpt := func(d int) lineReading {
		return lineReading{fmt.Sprintf("the checkpoint of %c", 'a'+d), func(s *lineState) {
			if s.ckpts[d] {
				m.needs(s, d, false)
			}
		}}
	}
	pins := lineReading{"pins", func(s *lineState) {
		d := m.Reader - 1
		switch {
		case s.pin == pinnedAll && s.heads[d]:
			s.found.object = true
		case s.pin == pinnedAll: // nobody can say what its lineage is: the whole pool is held
			s.found = lineMark{object: true, refs: [2]bool{true, true}}
		case s.pin == pinnedMap:
			m.needs(s, d, false)
		}
	}}
	return []lineReading{head(diskA), head(diskB), head(diskC), ckpt(diskA), ckpt(diskB), pins,
		head(diskA), head(diskB), head(diskC)}
}
