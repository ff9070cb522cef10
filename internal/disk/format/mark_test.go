package format

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func sampleMark() *Mark {
	m := &Mark{Created: time.Unix(1_700_000_000, 0).UTC(),
		Documents: map[string]string{"disks/a/pins/lease-1": "N"},
		Disks:     []MarkedDisk{{Path: "disks/a", UID: "U"}, {Path: "disks/gone"}}}
	for i := range 3 * markKeys / 2 { // several lines of one disk
		m.Disks[0].Garbage = append(m.Disks[0].Garbage, fmt.Sprintf("log/%016x/%016x", 1, i))
	}
	m.Disks[1].Garbage = []string{"map/0000000000000001-00000001/root"}
	return m
}

func TestMarkRoundTrip(t *testing.T) {
	c := codec(t)
	m := sampleMark()
	b, err := c.EncodeMark(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.DecodeMark(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("%v: %+v", err, got)
	}
	for _, cut := range []int{0, 5, markFixed, markFixed + 3, len(b) - 1} {
		if _, err := c.DecodeMark(b[:cut]); !errs.Is(err, errs.Corrupt) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	b[len(b)-1] ^= 1
	if _, err := c.DecodeMark(b); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a flipped bit: %v", err)
	}
	b[8]++
	if _, err := c.DecodeMark(b); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a newer version: %v", err)
	}
}

func TestPinRefusals(t *testing.T) {
	good := Pin{Version: 1, ID: "x", Nonce: "N", All: true}
	line := []Ancestor{{Path: "d", UID: "U"}}
	for name, change := range map[string]func(*Pin){
		"no nonce": func(p *Pin) { p.Nonce = "" },
		"lease":    func(p *Pin) { p.LeaseMS = MaxLeaseMS + 1 },
		"both": func(p *Pin) {
			p.Map = &PinnedMap{Size: BlockSize, Root: &RootRef{Size: 1},
				Lineage: line}
		},
		"no root": func(p *Pin) {
			p.All, p.Map = false,
				&PinnedMap{Size: BlockSize, Lineage: line}
		},
		"bad lineage": func(p *Pin) {
			p.All, p.Map = false, &PinnedMap{Size: BlockSize, Root: &RootRef{Lineage: 1, Size: 1},
				Lineage: line}
		},
	} {
		p := good
		change(&p)
		b, err := Encode(&p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodePin(b); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := Encode(&good)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := DecodePin(b); err != nil || *p != good {
		t.Errorf("%v: %+v", err, p)
	}
}
