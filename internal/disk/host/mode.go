package host

import (
	"context"
	"errors"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// SetMode implements diskapi.Changer: it changes the disk's mode while it is in use.
func (w *Writer) SetMode(ctx context.Context, req diskapi.Mode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	bound := req.Bound()
	if bound == 0 {
		if err := w.SetBound(ctx, 0, nil); err != nil {
			return err
		}
		return w.closeJournal()
	}
	if w.journal != nil && w.Stats().Journal != nil { // it works
		if req.Journal != "" && req.Journal != w.journalFile {
			return errs.New(errs.Conflict, "the disk has a journal in use, %s", w.journalFile).
				WithRemedy(
					"leave out --journal; or make the disk durable first, and bounded with the other one after that")
		}
		return w.SetBound(ctx, bound, nil)
	}
	if req.Journal == "" {
		return errs.New(errs.Invalid,
			"mode bounded needs a journal, and the disk was attached without one").
			WithRemedy("name a file or block device of this host: --journal FILE")
	}
	next := JournalConfig{File: req.Journal, Size: req.JournalSize}
	// the one before has failed, and may be the same file
	if err := w.closeJournal(); err != nil {
		return err
	}
	j, err := next.make()
	if err != nil {
		return err
	}
	if err := w.SetBound(ctx, bound, j); err != nil {
		return errors.Join(err, j.Close())
	}
	w.journal, w.journalFile = j, req.Journal
	return nil
}

// Checkpoints implements diskapi.Disk.
func (w *Writer) Checkpoints(ctx context.Context) ([]*format.Checkpoint, error) {
	return disk.ListCheckpoints(ctx, w.ref.Store, w.ref.Path)
}
