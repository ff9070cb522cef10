package host

import (
	"log/slog"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// brokenFile is a journal's file that can't be closed.
type brokenFile struct{ *journaltest.File }

func (brokenFile) Close() error { return errs.Wrap(errs.Unavailable, unix.EIO, "close") }

// TestAJournalThatCantBeClosedIsLeft: it is told once, and the next one takes its place.
func TestAJournalThatCantBeClosedIsLeft(t *testing.T) {
	t.Parallel()
	ref := &Ref{URL: "s3://b/disks/x", Path: "disks/x", Store: memblob.New()}
	if _, err := disk.Create(t.Context(), ref.Store, ref.Path,
		disk.CreateOptions{Size: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	w, err := Attach(t.Context(), ref, &AttachConfig{Logger: slog.New(slog.DiscardHandler),
		Registry: attachment.Open(t.TempDir()),
		Key:      func() (disk.KEK, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	broken := brokenFile{journaltest.New(make([]byte, 2<<20), &journaltest.Death{})}
	if w.journal, err = journal.New(broken, journal.Options{Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	next := diskapi.Mode{BoundMS: 1000, Journal: filepath.Join(t.TempDir(), "journal"),
		JournalSize: "2MiB"}
	if err := w.SetMode(t.Context(), next); !errs.Is(err, errs.Unavailable) {
		t.Errorf("the old one can't be closed: %v", err)
	}
	if err := w.SetMode(t.Context(), next); err != nil || w.Stats().Acknowledges != "journal" {
		t.Errorf("the next one: %v, acknowledged by the %s", err, w.Stats().Acknowledges)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
