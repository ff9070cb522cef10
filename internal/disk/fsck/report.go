package fsck

import (
	"fmt"
	"sync"
)

// maxFindings bounds how many findings a report spells out; all are counted.
const maxFindings = 1000

// Finding is one damaged thing.
type Finding struct {
	Object string `json:"object"` // key in the store
	Detail string `json:"detail"`
}

// Tally counts objects.
type Tally struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (t *Tally) add(size int64) {
	t.Objects++
	t.Bytes += size
}

// Report is what a check has found.
type Report struct {
	Path        string `json:"path"`
	State       string `json:"state"` // of the head: open or closed
	Epoch       uint64 `json:"epoch"`
	SizeBytes   int64  `json:"size_bytes"`
	Checkpoints int    `json:"checkpoints"`
	Forks       int    `json:"forks"` // disks that depend on this one, and theirs
	Pins        int    `json:"pins"`
	Roots       int    `json:"roots"` // map roots walked
	Pages       int    `json:"pages"`
	MappedBytes int64  `json:"mapped_bytes"` // in the head's map
	Segments    int    `json:"segments"`     // headers checked
	Frames      int    `json:"frames"`       // contents checked
	LogObjects  int    `json:"log_objects"`  // that an attach would replay
	// where the log is, if in a second store; what is there counts as own
	LogStore    string           `json:"log_store,omitempty"`
	Fences      int              `json:"fences"`
	ReadBytes   int64            `json:"read_bytes"`
	Own         Tally            `json:"own"`         // all objects below the disk's path
	Unreachable map[string]Tally `json:"unreachable"` // by kind: log, map, seg, boot, other
	InFlight    Tally            `json:"in_flight"`   // of a writer that has the disk open, or had
	DamageCount int              `json:"damage_count"`
	Cipher      string           `json:"cipher,omitempty"` // of an encrypted disk
	// pages, headers and frames of which, for lack of the key, only the checksum was checked
	Locked int       `json:"locked,omitempty"`
	Damage []Finding `json:"damage"`
	Notes  []string  `json:"notes"`
}

// Garbage returns what is unreachable, of all kinds.
func (r *Report) Garbage() Tally {
	var t Tally
	for _, k := range r.Unreachable {
		t.Objects += k.Objects
		t.Bytes += k.Bytes
	}
	return t
}

// log gathers a report from many goroutines.
type log struct {
	mu sync.Mutex
	r  *Report
}

func (l *log) damage(object, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r.DamageCount++
	if len(l.r.Damage) < maxFindings {
		l.r.Damage = append(l.r.Damage,
			Finding{Object: object, Detail: fmt.Sprintf(format, args...)})
	}
}

func (l *log) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.r.Notes) < maxFindings {
		l.r.Notes = append(l.r.Notes, fmt.Sprintf(format, args...))
	}
}

// count changes the report's counters.
func (l *log) count(f func(r *Report)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.r)
}
