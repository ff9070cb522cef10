package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

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

// config returns what the flags say.
func (f *journalFlags) config() (host.JournalConfig, error) {
	if f.size != "" && f.file == "" {
		return host.JournalConfig{}, usageError("--journal-size is of a --journal")
	}
	return host.JournalConfig{File: f.file, Size: f.size, Discard: f.discard}, nil
}

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
