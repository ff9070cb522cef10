// Package attachment keeps track of which disks are attached on this host, by whom and as what, in
// a directory of one small file per attachment.
//
// Invariants:
//   - A record is an observation and never a lock: what decides who writes a disk is the disk's own
//     head.
//   - A record says which process it is of, so that one that was left behind is known for what it
//     is, also when its PID has been given to another process.
//   - Records are replaced whole. Whoever ends in order removes its own.
package attachment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Mode is what an attachment is for.
type Mode string

// The modes.
const (
	Mount  Mode = "mount"  // a file system on a directory
	Serve  Mode = "serve"  // an NBD server
	Device Mode = "device" // a block device
)

// Record describes one attachment.
type Record struct {
	URL      string `json:"url"`
	Mode     Mode   `json:"mode"`
	ReadOnly bool   `json:"read_only"`
	// what is read, of a read-only attachment; "": the newest map
	Checkpoint  string    `json:"checkpoint,omitempty"`
	PID         int       `json:"pid"`
	Mountpoint  string    `json:"mountpoint,omitempty"`
	BlockDevice string    `json:"block_device,omitempty"`
	FrontEnd    string    `json:"front_end,omitempty"`  // how the kernel gets the disk: fuse or nbd
	NBD         []string  `json:"nbd,omitempty"`        // URIs it is served at
	Generation  uint64    `json:"generation,omitempty"` // of a writer
	Epoch       uint64    `json:"epoch,omitempty"`
	Holder      string    `json:"holder"`
	StartedAt   time.Time `json:"started_at"`
	Process     Process   `json:"process"`
	Control     string    `json:"control,omitempty"` // unix socket that takes commands
	// Ended is why the disk has stopped under an attachment that is kept, and gives I/O errors,
	// until somebody ends it.
	Ended string `json:"ended,omitempty"`
	Log   string `json:"log,omitempty"` // of one in the background
}

// Registry is a directory of records.
type Registry struct{ dir string }

// Open returns the registry in dir, which is made, for this user alone, when the first record is
// put there.
func Open(dir string) *Registry { return &Registry{dir: dir} }

// name returns a record's file, without an ending. Any number of readers, and one writer, attach
// one disk.
func (g *Registry) name(r *Record) string {
	return filepath.Join(g.dir, fmt.Sprintf("%s-%d-%d", urlHash(r.URL), r.Process.PID,
		r.Process.Start))
}

func urlHash(url string) string {
	sum := sha256.Sum256([]byte(url))
	return hex.EncodeToString(sum[:8])
}

// ControlPath returns where a record's control socket belongs.
func (g *Registry) ControlPath(r *Record) string { return g.name(r) + ".sock" }

// Prepare makes the directory.
func (g *Registry) Prepare() error {
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return errs.Wrap(errs.Denied, err, "make the directory of attachments").WithRemedy(
			"set SLUICE_RUN_DIR to one that can be written")
	}
	return nil
}

// Put writes or replaces a record.
func (g *Registry) Put(r *Record) error {
	if err := g.Prepare(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode an attachment")
	}
	if err := atomicfile.Write(g.name(r)+".json", append(b, '\n'), 0o600); err != nil {
		return errs.Wrap(errs.Unavailable, err, "record the attachment of %s", r.URL)
	}
	return nil
}

// Remove removes a record and its socket. A missing one is fine.
func (g *Registry) Remove(r *Record) error {
	var all error
	for _, f := range []string{g.ControlPath(r), g.name(r) + ".json"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// List returns the records of live processes, oldest first, and those of dead ones. A process that
// can't be told about counts as live. Files that aren't records are left alone.
func (g *Registry) List() (live, dead []Record, err error) {
	entries, err := os.ReadDir(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, errs.Wrap(errs.Denied, err, "list the attachments of this host")
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var r Record
		b, err := os.ReadFile(filepath.Join(g.dir, e.Name()))
		if err != nil || json.Unmarshal(b, &r) != nil || r.URL == "" {
			continue // removed meanwhile, or none of ours
		}
		if r.Process.Liveness() == Dead {
			dead = append(dead, r)
		} else {
			live = append(live, r)
		}
	}
	slices.SortFunc(live, func(a, b Record) int { return a.StartedAt.Compare(b.StartedAt) })
	return live, dead, nil
}
