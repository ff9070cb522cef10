package model

import (
	"errors"
	"fmt"
	"strings"
)

// What Explore reports beside what a model's Check does.
var (
	ErrStuck   = errors.New("somebody waits for ever")
	ErrTooMany = errors.New("more states than expected")
)

// Step is one thing that can happen in a state.
type Step[S comparable] struct {
	Name string
	Next S
}

// Model is a protocol: where it begins, what can happen, and what must hold.
type Model[S comparable] interface {
	Init() S
	Steps(S) []Step[S]
	// Check returns what doesn't hold in a state.
	Check(S) error
	// Done reports whether nobody waits for anything; a state that nothing follows must be done.
	Done(S) bool
}

// Result is what a search found.
type Result struct {
	States int
	Err    error    // nil: everything holds in every state
	Trace  []string // the shortest way to Err
}

// String renders the way to a violation, a step a line.
func (r Result) String() string {
	return fmt.Sprintf("%v\n  %s", r.Err, strings.Join(r.Trace, "\n  "))
}

type came[S comparable] struct {
	from S
	step string
}

// Explore visits every state, nearest first, and stops at the first that violates something. It
// fails when there are more than limit.
func Explore[S comparable](m Model[S], limit int) Result {
	first := m.Init()
	seen := map[S]came[S]{first: {}}
	queue := []S{first}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		err := m.Check(s)
		steps := m.Steps(s)
		if err == nil && len(steps) == 0 && !m.Done(s) {
			err = ErrStuck
		}
		if err == nil && len(seen) > limit {
			err = ErrTooMany
		}
		if err != nil {
			return Result{States: len(seen), Err: err, Trace: trace(seen, first, s)}
		}
		for _, st := range steps {
			if _, ok := seen[st.Next]; !ok {
				seen[st.Next] = came[S]{s, st.Name}
				queue = append(queue, st.Next)
			}
		}
	}
	return Result{States: len(seen)}
}

func trace[S comparable](seen map[S]came[S], first, s S) []string {
	var t []string
	for s != first {
		c := seen[s]
		t = append([]string{c.step}, t...)
		s = c.from
	}
	return t
}
