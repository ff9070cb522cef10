package filledtest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/filledtest"
)

type inner struct{ A, B int }

type outer struct {
	Name  string
	At    time.Time
	One   *inner
	Many  []inner
	Named map[string]*inner
	Times [3]int
	own   int
}

// TestFill: what it has filled lacks nothing.
func TestFill(t *testing.T) {
	var o outer
	filledtest.Fill(&o)
	if got := filledtest.Zero(o); len(got) != 0 || o.own != 0 {
		t.Errorf("missed is %v of %+v", got, o)
	}
}

// TestZero: each field that no part of the example has is named, and no other one is.
func TestZero(t *testing.T) {
	full := outer{Name: "x", At: time.Unix(1, 0), One: &inner{A: 1, B: 2},
		Many: []inner{{A: 1}, {B: 2}}, Named: map[string]*inner{"a": {A: 1}, "b": {B: 1}},
		Times: [3]int{0, 1}}
	if got := filledtest.Zero(full); len(got) != 0 {
		t.Errorf("all is there, and missed is %v", got)
	}
	full.own = 1
	for want, empty := range map[string]func(*outer){
		".Name": func(o *outer) { o.Name = "" }, ".At": func(o *outer) { o.At = time.Time{} },
		".One": func(o *outer) { o.One = nil }, ".One.B": func(o *outer) { o.One = &inner{A: 1} },
		".Many": func(o *outer) { o.Many = nil }, ".Times": func(o *outer) { o.Times = [3]int{} },
		".Many[].B":  func(o *outer) { o.Many = []inner{{A: 1}, {A: 2}} },
		".Many[]":    func(o *outer) { o.Many = []inner{{}} },
		".Named[].A": func(o *outer) { o.Named = map[string]*inner{"a": nil, "b": {B: 1}} },
	} {
		o := full
		empty(&o)
		if got := filledtest.Zero(o); !slices.Equal(got, []string{want}) {
			t.Errorf("without %s missed is %v", want, got)
		}
	}
}
