package host

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// defaultJournalSize is the size of a new journal that nobody has chosen.
const defaultJournalSize = 256 << 20

// JournalConfig says where the journal of a disk of mode bounded is.
type JournalConfig struct {
	File    string // "": none
	Size    string // as people write it, in MiB without a unit; "": what is there has, or 256 MiB
	Discard bool   // attach without what a journal that isn't given has
}

// make opens the journal, nil if none is named, and makes it where there is none.
func (c *JournalConfig) make() (*journal.Journal, error) {
	if c.File == "" {
		return nil, nil
	}
	size, err := c.bytes()
	if err != nil {
		return nil, err
	}
	return journal.Open(c.File, journal.Options{Size: size})
}

// bytes returns the journal's size: the one asked for, or that of what is there.
func (c *JournalConfig) bytes() (int64, error) {
	if c.Size != "" {
		return bytesize.Parse(c.Size, 1<<20)
	}
	there, err := os.Open(c.File)
	if errors.Is(err, os.ErrNotExist) {
		return defaultJournalSize, nil
	}
	if err != nil {
		return 0, errs.Wrap(errs.Invalid, err, "open the journal").WithRemedy(
			"give a file or block device that can be read and written")
	}
	defer there.Close()
	size, err := there.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return defaultJournalSize, nil
	}
	return size, nil
}

// open opens the journal for a disk with that head. An attach without a
// journal that may have acknowledged writes is refused.
func (c *JournalConfig) open(ref *Ref, h *format.Head) (*journal.Journal, error) {
	if c.File != "" && h.Mode != format.ModeBounded {
		return nil, errs.New(errs.Invalid, "disk %s is of mode %s, which has no journal",
			ref.URL, h.Mode).
			WithRemedy(
				"leave out --journal; disks of mode bounded are made by: sluice disk create --mode bounded=5s")
	}
	needs, err := c.needed(h)
	if err != nil {
		return nil, err
	}
	refuse := func(why, remedy string) error {
		return errs.New(errs.Conflict,
			"disk %s was not closed, and %s: writes of up to %v that were acknowledged may be in its journal and not in the store",
			ref.URL, why, boundOf(h)).WithRemedy("%s; to give those writes up: --discard-journal",
			remedy)
	}
	if needs && c.File == "" {
		return nil, refuse("was last attached on this host",
			"attach it with its journal: --journal FILE")
	}
	other := c.File + " is not the journal of its last writer"
	if _, err := os.Stat(c.File); needs && errors.Is(err, os.ErrNotExist) {
		return nil, refuse(other, "give the right --journal FILE") // and don't make one
	}
	j, err := c.make()
	if !needs || err != nil {
		return j, err
	}
	has, err := disk.JournalHas(j, h)
	if err == nil && !has {
		err = refuse(other, "give the right --journal FILE")
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// needed reports whether writes may be lost by an attach of the disk without its journal: it
// is open, of mode bounded, and its last writer was on this host, at this boot or another. The
// journal of another host is out of reach: there --take-over is the word for it.
func (c *JournalConfig) needed(h *format.Head) (bool, error) {
	if h.Mode != format.ModeBounded || h.State != format.StateOpen || c.Discard {
		return false, nil
	}
	self, err := attachment.Self()
	p, ok := attachment.ParseHolder(h.Holder)
	return ok && p.Host == self.Host, err
}

func boundOf(h *format.Head) time.Duration { return time.Duration(h.BoundMS) * time.Millisecond }
