package gc

import (
	"fmt"
	"slices"
	"time"
)

// Tally counts objects.
type Tally struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (t *Tally) add(size int64) {
	t.Objects++
	t.Bytes += size
}

// Tallies counts objects by what they are: log, seg, map, boot, refs, pins, owner; or by why they
// are kept.
type Tallies map[string]Tally

func (t Tallies) add(what string, size int64) {
	x := t[what]
	x.add(size)
	t[what] = x
}

// Total returns the sum.
func (t Tallies) Total() (sum Tally) {
	for _, x := range t {
		sum.Objects += x.Objects
		sum.Bytes += x.Bytes
	}
	return sum
}

// Why an object is kept.
const (
	KeptReached  = "reached"   // by a head, a checkpoint, a fork or a pin
	KeptInFlight = "in_flight" // a writer may be about to refer to it, or a replay needs it
	KeptFence    = "fence"     // it keeps a writer of an old epoch out
	// a reader or a restore, or a fork that was never finished, holds all of the disk
	KeptPinned = "pinned"
	// heads, checkpoints, references, pins, owners' documents, and their boot traces
	KeptDocument  = "document"
	KeptDoubtful  = "doubtful"  // an object of its disk, or of a fork of that, makes no sense
	KeptUncertain = "uncertain" // its disk changed while it was looked at
	KeptUnknown   = "unknown"   // no object of a disk
)

// maxNotes bounds how many notes a report spells out.
const maxNotes = 200

// Report is what a collection has found and done.
type Report struct {
	DryRun  bool      `json:"dry_run"`
	Started time.Time `json:"started"`
	// when the earlier mark was made that this one was held against; nil: there was none that is
	// old enough
	Marked *time.Time `json:"marked,omitempty"`
	Disks  int        `json:"disks"`
	// paths of disks that are gone, whose objects are not all
	Destroyed   int     `json:"destroyed"`
	Checkpoints int     `json:"checkpoints"`
	Forks       int     `json:"forks"`
	Pins        int     `json:"pins"`
	Maps        int     `json:"maps"`    // walked
	Objects     Tally   `json:"objects"` // all objects that there were
	Kept        Tallies `json:"kept"`    // by why
	Freed       Tallies `json:"freed"`   // by kind; in a dry run: what would have been
	// garbage by kind, that the earlier mark has not, or that was not there
	Waiting Tallies `json:"waiting"`
	// when what is waiting may be deleted by the next run
	Next  *time.Time `json:"next,omitempty"`
	Notes []string   `json:"notes"`
	// objects that make no sense, and keep all of their disks' lines from being collected; at most
	// 200, of Doubts
	Doubtful []Doubt `json:"doubtful"`
	Doubts   int     `json:"doubts"`
}

// Doubt is an object that makes no sense.
type Doubt struct {
	Object string `json:"object"` // its key
	Disk   string `json:"disk"`   // its path
	Why    string `json:"why"`
	// it can't be told what the disk descends from, so that nothing of the pool is collected
	HoldsAll bool   `json:"holds_all,omitempty"`
	Remedy   string `json:"remedy"`
}

func (r *Report) doubt(d doubt, holdsAll bool, remedy string) {
	if r.Doubts++; len(r.Doubtful) < maxNotes {
		r.Doubtful = append(r.Doubtful, Doubt{d.key, d.path, d.why.Error(), holdsAll, remedy})
	}
}

func newReport(o *Options) *Report {
	return &Report{DryRun: o.DryRun, Started: o.Now(), Kept: Tallies{}, Freed: Tallies{},
		Waiting: Tallies{}, Notes: []string{}, Doubtful: []Doubt{}}
}

func (r *Report) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); len(r.Notes) < maxNotes && !slices.Contains(r.Notes, s) {
		r.Notes = append(r.Notes, s)
	}
}
