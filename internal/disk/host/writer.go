package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// closeWait bounds how long a disk that is closed waits for its store, after an interrupt too.
const closeWait = 5 * time.Minute

// AttachConfig says how this host becomes a disk's writer.
type AttachConfig struct {
	Registry *attachment.Registry
	Key      func() (disk.KEK, error) // asked when the key is needed; it may be nil
	Journal  JournalConfig
	TakeOver bool // it doesn't matter whether anybody else writes
	OpenLog  disk.OpenStore
	Tuning   disk.Tuning
	Logger   *slog.Logger
}

// Writer is a disk that this process has attached.
type Writer struct {
	*disk.Disk
	ref    *Ref
	holder string

	mu          sync.Mutex       // of changes of the journal
	journal     *journal.Journal // or nil
	journalFile string
}

// Attach makes this process the disk's writer, if nobody else is or TakeOver says that it doesn't
// matter. What a process of this host has left behind when it died is taken over without asking.
func Attach(ctx context.Context, ref *Ref, cfg *AttachConfig) (*Writer, error) {
	head, err := disk.ReadHead(ctx, ref.Store, ref.Path)
	if err != nil {
		return nil, ref.Explain(ctx, err)
	}
	if !cfg.TakeOver {
		if err := MayAttach(ctx, ref, cfg.Registry, head); err != nil {
			return nil, err
		}
	}
	self, err := attachment.Self()
	if err != nil {
		return nil, err
	}
	key, err := cfg.Key()
	if err != nil {
		return nil, err
	}
	j, err := cfg.Journal.open(ref, head)
	if err != nil {
		return nil, err
	}
	w := &Writer{ref: ref, holder: self.Holder(), journal: j}
	if w.journalFile, err = filepath.Abs(cfg.Journal.File); err != nil && j != nil {
		return nil, errors.Join(errs.Wrap(errs.Invalid, err, "journal %s", cfg.Journal.File),
			j.Close())
	}
	w.Disk, err = disk.Attach(ctx, ref.Store, ref.Path,
		disk.AttachOptions{Key: key, Journal: j, OpenLog: cfg.OpenLog,
			Generation: head.Generation + 1, Holder: w.holder, Logger: cfg.Logger,
			Tuning: cfg.Tuning})
	if err != nil {
		return nil, errors.Join(err, w.closeJournal())
	}
	return w, nil
}

// MayAttach refuses a disk that has a writer, or may have one, and one that is a machine's.
func MayAttach(ctx context.Context, ref *Ref, reg *attachment.Registry, h *format.Head) error {
	if h.State == format.StateClosed {
		_, _, err := disk.ReadOwnerDoc(ctx, ref.Store, ref.Path)
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return errs.New(errs.Conflict,
			"disk %s belongs to a machine of a fleet, whose next start would find it changed and refuse it", ref.URL).
			WithRemedy("fork it, or read it with --read-only; if the fleet is gone: --take-over")
	}
	rec, err := WriterHere(reg, ref.URL)
	if err != nil {
		return err
	}
	if rec != nil {
		return errs.New(errs.Conflict, "disk %s is attached on this host: %s", ref.URL,
			Describe(rec)).
			WithRemedy("detach it first: sluice disk detach %s", ref.URL)
	}
	p, ok := attachment.ParseHolder(h.Holder)
	switch {
	case !ok:
		return errs.New(errs.Conflict, "disk %s is attached: %q holds it with generation %d",
			ref.URL, h.Holder, h.Generation).
			WithRemedy(
				"ask its fleet: sluice disk info or checkpoint --machine NAME; or stop the machine; if it is gone for good: --take-over")
	case p.Liveness() == attachment.Dead:
		return nil // it crashed here; the attach replays what it had flushed
	case p.Liveness() == attachment.Alive:
		return errs.New(errs.Conflict, "disk %s is in use by process %d of this host",
			ref.URL, p.PID).
			WithRemedy("wait for process %d, or end it", p.PID)
	}
	return errs.New(errs.Conflict, "disk %s is attached by process %d of host %s", ref.URL,
		p.PID, p.Host).
		WithRemedy("detach it there; if that host has died or was rebooted since: --take-over")
}

// WriterHere returns the record of the live attachment of this host that writes the disk, or nil.
// One that is cut off from the disk, and only keeps its place, writes nothing.
func WriterHere(reg *attachment.Registry, url string) (*attachment.Record, error) {
	live, _, err := reg.List()
	if err != nil {
		return nil, err
	}
	for i := range live {
		if live[i].URL == url && !live[i].ReadOnly && live[i].Ended == "" {
			return &live[i], nil
		}
	}
	return nil, nil
}

// Describe says which process has a disk, and as what.
func Describe(r *attachment.Record) string {
	what := "process " + fmt.Sprint(r.PID)
	switch {
	case r.Mountpoint != "":
		return what + " has it mounted on " + r.Mountpoint
	case len(r.NBD) > 0:
		return what + " serves it at " + strings.Join(r.NBD, ", ")
	case r.BlockDevice != "":
		return what + " has it attached as " + r.BlockDevice
	}
	return what + " has it"
}

// Settle sees to it that a disk's head tells all there is: that nobody has it attached, and that a
// writer which died here is cleaned up after.
func Settle(ctx context.Context, ref *Ref, cfg *AttachConfig) error {
	head, err := disk.ReadHead(ctx, ref.Store, ref.Path)
	if err != nil {
		return ref.Explain(ctx, err)
	}
	if head.State == format.StateClosed {
		return nil
	}
	w, err := Attach(ctx, ref, cfg)
	if err != nil {
		return err
	}
	return w.Close(ctx)
}

// Close closes the disk and its journal, also when ctx has ended: what was written is worth waiting
// for.
func (w *Writer) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	err := w.Disk.Close(ctx)
	if err != nil {
		w.Abandon()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(err, w.closeJournal())
}

// closeJournal leaves the writer without a journal, also where that can't be closed: it isn't used
// any more, and is closed once only.
func (w *Writer) closeJournal() error {
	j := w.journal
	w.journal = nil
	if j == nil {
		return nil
	}
	return j.Close()
}
