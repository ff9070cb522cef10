package main

import (
	"fmt"
	"io"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
)

const (
	defaultStallTimeout = time.Minute
	minStallTimeout     = time.Second
)

const stallHelp = `A store that doesn't answer, is full or refuses us holds up who uses the disk:
writes are kept in memory until that is full, flushes and reads wait. After
--stall-timeout they fail with an I/O error, which most file systems answer by
turning read-only until they are mounted again. Nothing that was flushed is lost,
and the disk itself goes on when the store does. With --stall-timeout 0 nothing ever
fails, and programs wait for as long as it takes.
`

// tuning returns how an attachment is to behave.
func (f *holdFlags) tuning() disk.Tuning {
	if f.stallTimeout == 0 {
		return disk.Tuning{StallTimeout: -1}
	}
	return disk.Tuning{StallTimeout: f.stallTimeout}
}

func (f *holdFlags) validateStall() error {
	if f.stallTimeout != 0 && f.stallTimeout < minStallTimeout {
		return usageError("--stall-timeout is at least 1s, or 0 for no end")
	}
	return nil
}

// printStall says what the store doesn't do, and what to do about it.
func stalledStore(s *disk.Stall) string {
	if s.LogStore != "" {
		return "the log store"
	}
	return "the store"
}

func printStall(w io.Writer, who string, s *disk.Stall) error {
	held := ""
	if !s.HeldSince.IsZero() {
		held = ", and somebody has waited for it for " + time.Since(s.HeldSince).Round(
			time.Second).String()
	}
	_, err := fmt.Fprintf(w, "%s: %s has stalled since %s (%s)%s: %s\n  try: %s\n", who,
		stalledStore(s), timestamp(s.Since), s.Operation, held, s.Reason, s.Remedy)
	return err
}
