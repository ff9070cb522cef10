package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const defaultJournalSize = 256 << 20

// journalFlags say where the journal of a disk of mode bounded is.
type journalFlags struct {
	file    string
	size    string
	discard bool
}

const journalHelp = `A disk of mode bounded acknowledges a flush once --journal has it, a file or block
device of this host. After a crash it needs the same one again: acknowledged writes
of the last moments may be nowhere else. Without it an attach on that host is
refused, unless --discard-journal gives them up. A disk attached without a journal
waits for the store.
`

// addJournalFlags lets a command be told the journal of the disk that it writes.
func (d *deps) addJournalFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&d.journal.file, "journal", "",
		"file or block device with the journal of a disk of mode bounded")
	cmd.Flags().StringVar(&d.journal.size, "journal-size", "",
		"its size; a bare number is in MiB (default: what is there has, or 256MiB)")
	cmd.Flags().BoolVar(&d.journal.discard, "discard-journal", false,
		"attach without what a journal that isn't given has: those acknowledged writes are lost")
	return cmd
}

func (f *journalFlags) validate(readOnly bool) error {
	if readOnly && (f.file != "" || f.size != "" || f.discard) {
		return usageError(
			"--journal, --journal-size and --discard-journal are for writers, and --read-only isn't one")
	}
	return nil
}

// args returns the flags as arguments, for a process that is to do the same in the background.
func (f *journalFlags) args() []string {
	var a []string
	if f.file != "" {
		file := f.file
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
		a = append(a, "--journal", file)
	}
	if f.size != "" {
		a = append(a, "--journal-size", f.size)
	}
	if f.discard {
		a = append(a, "--discard-journal")
	}
	return a
}

// holdArgs returns the flags that say what a disk is attached with as arguments.
func (d *deps) holdArgs() []string { return append(d.keyArgs(), d.journal.args()...) }

// open opens the journal, nil if none is named.
func (f *journalFlags) open() (*journal.Journal, error) {
	if f.file == "" {
		if f.size != "" {
			return nil, usageError("--journal-size is of a --journal")
		}
		return nil, nil
	}
	size, err := f.bytes()
	if err != nil {
		return nil, err
	}
	return journal.Open(f.file, journal.Options{Size: size})
}

// bytes returns the journal's size: the one asked for, or that of what is there.
func (f *journalFlags) bytes() (int64, error) {
	if f.size != "" {
		return parseSize(f.size, 1<<20)
	}
	there, err := os.Open(f.file)
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

// openJournal opens the journal that flags name, for a disk with that head. An attach without a
// journal that may have acknowledged writes is refused.
func (d *deps) openJournal(ref *diskRef, h *format.Head) (*journal.Journal, error) {
	if d.journal.file != "" && h.Mode != format.ModeBounded {
		return nil, errs.New(errs.Invalid, "disk %s is of mode %s, which has no journal",
			ref.url, h.Mode).
			WithRemedy(
				"leave out --journal; disks of mode bounded are made by: sluice disk create --mode bounded=5s")
	}
	needs, err := d.needsJournal(h)
	if err != nil {
		return nil, err
	}
	refuse := func(why, remedy string) error {
		return errs.New(errs.Conflict,
			"disk %s was not closed, and %s: writes of up to %v that were acknowledged may be in its journal and not in the store",
			ref.url, why, boundOf(h)).WithRemedy("%s; to give those writes up: --discard-journal",
			remedy)
	}
	if needs && d.journal.file == "" {
		return nil, refuse("was last attached on this host",
			"attach it with its journal: --journal FILE")
	}
	other := d.journal.file + " is not the journal of its last writer"
	if _, err := os.Stat(d.journal.file); needs && errors.Is(err, os.ErrNotExist) {
		return nil, refuse(other, "give the right --journal FILE") // and don't make one
	}
	j, err := d.journal.open()
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

// needsJournal reports whether writes may be lost by an attach of the disk without its journal: it
// is open, of mode bounded, and its last writer was on this host, at this boot or another. The
// journal of another host is out of reach: there --take-over is the word for it.
func (d *deps) needsJournal(h *format.Head) (bool, error) {
	if h.Mode != format.ModeBounded || h.State != format.StateOpen || d.journal.discard {
		return false, nil
	}
	self, err := attachment.Self()
	p, ok := attachment.ParseHolder(h.Holder)
	return ok && p.Host == self.Host, err
}

func boundOf(h *format.Head) time.Duration { return time.Duration(h.BoundMS) * time.Millisecond }

// parseMode reads --mode: durable, or bounded=T. It returns the bound, 0 for durable.
func parseMode(s string) (time.Duration, error) {
	name, value, has := strings.Cut(s, "=")
	switch {
	case name == format.ModeDurable && !has:
		return 0, nil
	case name != format.ModeBounded || !has:
		return 0, usageError("--mode is durable, or bounded=T such as bounded=5s, not %q", s)
	}
	bound, err := time.ParseDuration(value)
	if err != nil || bound < format.MinBoundMS*time.Millisecond ||
		bound > format.MaxBoundMS*time.Millisecond || bound%time.Millisecond != 0 {
		return 0, usageError("--mode bounded=T takes 100ms to 1h in whole milliseconds, not %q",
			value)
	}
	return bound, nil
}

// describeMode says how a disk acknowledges flushes, for people.
func describeMode(mode string, boundMS int64) string {
	if boundMS == 0 {
		return mode
	}
	return mode + ", at most " + (time.Duration(boundMS) * time.Millisecond).String() +
		" of acknowledged writes only in a journal"
}
