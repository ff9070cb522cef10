package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// diskCloseWait bounds how long a disk that is closed waits for its store, after an interrupt too.
const diskCloseWait = 5 * time.Minute

// diskRef is a disk in an open store. It may not exist.
type diskRef struct {
	url     string // as it is always written, so that two names of one disk are alike
	pool    string // URL of the store
	path    string
	store   blob.Store
	notices []*storeNotice // of its stores that may be silent
	logURL  string         // where the log of a new one is to be; empty: beside its other objects
}

// openDisk opens the store that a disk is in. A disk that there is has its log where its head says:
// a URL that says otherwise is of another disk, or wrong.
func (d *deps) openDisk(ctx context.Context, url string) (*diskRef, error) {
	bare, logURL, err := blobs.SplitLogURL(url)
	if err != nil {
		return nil, err
	}
	ref, err := d.openBare(ctx, bare)
	if err != nil || logURL == "" {
		return ref, err
	}
	ref.logURL = logURL
	head, err := disk.ReadHead(ctx, ref.store, ref.path)
	switch {
	case errs.Is(err, errs.NotFound):
		return ref, nil
	case err == nil && (head.LogStore == nil || head.LogStore.URL != logURL):
		where := "beside its other objects"
		if head.LogStore != nil {
			where = "in " + head.LogStore.URL
		}
		err = errs.New(errs.Conflict, "disk %s has its log %s, and not in %s", ref.url,
			where, logURL).
			WithRemedy("leave ?log= out: the disk remembers where its log is")
	}
	if err != nil {
		return nil, errors.Join(err, ref.store.Close())
	}
	return ref, nil
}

func (d *deps) openBare(ctx context.Context, url string) (*diskRef, error) {
	pool, path, err := blobs.SplitDiskURL(url)
	if err != nil {
		return nil, err
	}
	canonical, err := blobs.JoinDiskURL(pool, path)
	if err != nil {
		return nil, err
	}
	store, err := blobs.Open(ctx, pool)
	if err != nil {
		return nil, err
	}
	ref := &diskRef{url: canonical, pool: blobs.Canonical(pool), path: path, store: store}
	if !strings.HasPrefix(pool, "file:") { // a directory answers, or the whole host waits for it
		var n *storeNotice
		ref.store, n = d.noticing(store, ref.pool)
		ref.notices = append(ref.notices, n)
	}
	return ref, nil
}

// within says how long its stores are waited for, where that is not as usual.
func (r *diskRef) within(limit time.Duration) {
	for _, n := range r.notices {
		if limit > 0 {
			n.within(limit)
		}
	}
}

// quiet has nothing told of its stores any more: an attachment does so itself.
func (r *diskRef) quiet() {
	for _, n := range r.notices {
		n.end()
	}
}

// openLogOf opens the store of a disk's log for an attach of it.
func (d *deps) openLogOf(ref *diskRef, limit time.Duration) disk.OpenStore {
	return func(ctx context.Context, url string) (blob.Store, error) {
		store, err := openLog(ctx, url)
		if err != nil {
			return nil, err
		}
		noticed, n := d.noticing(store, url)
		ref.notices = append(ref.notices, n)
		ref.within(limit)
		return noticed, nil
	}
}

// registry returns where the attachments of this host are recorded.
func (d *deps) registry() *attachment.Registry {
	dir := d.env("SLUICE_RUN_DIR")
	switch runtime := d.env("XDG_RUNTIME_DIR"); {
	case dir != "":
	case os.Getuid() == 0:
		dir = "/run/sluice"
	case runtime != "":
		dir = filepath.Join(runtime, "sluice")
	default:
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("sluice-%d", os.Getuid()))
	}
	return attachment.Open(filepath.Join(dir, "disks"))
}

// diskLogger is for the background work of a disk that a person waits for.
func (d *deps) diskLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(d.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// diskWriter is a disk that this process has attached.
type diskWriter struct {
	*disk.Disk
	holder string

	mu          sync.Mutex       // of changes of the journal
	journal     *journal.Journal // or nil
	journalFile string
}

// attach makes this process the disk's writer, if nobody else is or takeOver says that it doesn't
// matter. What a process of this host has left behind when it died is taken over without asking.
func (d *deps) attach(ctx context.Context, ref *diskRef, takeOver bool) (*diskWriter, error) {
	return d.attachTuned(ctx, ref, takeOver, disk.Tuning{})
}

func (d *deps) attachTuned(ctx context.Context, ref *diskRef, takeOver bool,
	tuning disk.Tuning) (*diskWriter, error) {
	head, err := disk.ReadHead(ctx, ref.store, ref.path)
	if err != nil {
		return nil, d.explainMissing(ctx, ref, err)
	}
	if !takeOver {
		if err := d.mayAttach(ctx, ref, head); err != nil {
			return nil, err
		}
	}
	self, err := attachment.Self()
	if err != nil {
		return nil, err
	}
	key, err := d.diskKey()
	if err != nil {
		return nil, err
	}
	j, err := d.openJournal(ref, head)
	if err != nil {
		return nil, err
	}
	ref.within(tuning.StallTimeout)
	w := &diskWriter{holder: self.Holder(), journal: j}
	if w.journalFile, err = filepath.Abs(d.journal.file); err != nil && j != nil {
		return nil, errors.Join(errs.Wrap(errs.Invalid, err, "journal %s", d.journal.file),
			j.Close())
	}
	w.Disk, err = disk.Attach(ctx, ref.store, ref.path,
		disk.AttachOptions{Key: key, Journal: j, OpenLog: d.openLogOf(ref, tuning.StallTimeout),
			Generation: head.Generation + 1, Holder: w.holder, Logger: d.diskLogger(),
			Tuning: tuning})
	if err != nil {
		return nil, errors.Join(err, w.closeJournal())
	}
	return w, nil
}

// mayAttach refuses a disk that has a writer, or may have one, and one that is a machine's.
func (d *deps) mayAttach(ctx context.Context, ref *diskRef, h *format.Head) error {
	if h.State == format.StateClosed {
		_, _, err := disk.ReadOwnerDoc(ctx, ref.store, ref.path)
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return errs.New(errs.Conflict,
			"disk %s belongs to a machine of a fleet, whose next start would find it changed and refuse it", ref.url).
			WithRemedy("fork it, or read it with --read-only; if the fleet is gone: --take-over")
	}
	rec, err := d.writerHere(ref.url)
	if err != nil {
		return err
	}
	if rec != nil {
		return errs.New(errs.Conflict, "disk %s is attached on this host: %s", ref.url,
			describeAttachment(rec)).
			WithRemedy("detach it first: sluice disk detach %s", ref.url)
	}
	p, ok := attachment.ParseHolder(h.Holder)
	switch {
	case !ok:
		return errs.New(errs.Conflict, "disk %s is attached: %q holds it with generation %d",
			ref.url, h.Holder, h.Generation).
			WithRemedy(
				"ask its fleet: sluice disk info or checkpoint --machine NAME; or stop the machine; if it is gone for good: --take-over")
	case p.Liveness() == attachment.Dead:
		return nil // it crashed here; the attach replays what it had flushed
	case p.Liveness() == attachment.Alive:
		return errs.New(errs.Conflict, "disk %s is in use by process %d of this host",
			ref.url, p.PID).
			WithRemedy("wait for process %d, or end it", p.PID)
	}
	return errs.New(errs.Conflict, "disk %s is attached by process %d of host %s", ref.url,
		p.PID, p.Host).
		WithRemedy("detach it there; if that host has died or was rebooted since: --take-over")
}

// writerHere returns the record of the live attachment of this host that writes the disk, or nil.
// One that is cut off from the disk, and only keeps its place, writes nothing.
func (d *deps) writerHere(url string) (*attachment.Record, error) {
	live, _, err := d.registry().List()
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

func describeAttachment(r *attachment.Record) string {
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

// placeOf says where an attachment is to be found.
func placeOf(r *attachment.Record) string {
	if r.Mode == attachment.Device {
		return r.BlockDevice
	}
	return r.Mountpoint + strings.Join(r.NBD, " ")
}

// settle sees to it that a disk's head tells all there is: that nobody has it attached, and that a
// writer which died here is cleaned up after.
func (d *deps) settle(ctx context.Context, ref *diskRef, takeOver bool) error {
	head, err := disk.ReadHead(ctx, ref.store, ref.path)
	if err != nil {
		return d.explainMissing(ctx, ref, err)
	}
	if head.State == format.StateClosed {
		return nil
	}
	w, err := d.attach(ctx, ref, takeOver)
	if err != nil {
		return err
	}
	return w.close(ctx)
}

// close closes the disk, also when ctx has ended: what was written is worth waiting for.
func (w *diskWriter) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), diskCloseWait)
	defer cancel()
	err := w.Close(ctx)
	if err != nil {
		w.Abandon()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(err, w.closeJournal())
}

func (w *diskWriter) closeJournal() error {
	if w.journal == nil {
		return nil
	}
	return w.journal.Close()
}

// explainMissing adds to NotFound what disks there are.
func (d *deps) explainMissing(ctx context.Context, ref *diskRef, err error) error {
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	const most = 5
	var there []string
	parent := ""
	if i := strings.LastIndexByte(ref.path, '/'); i >= 0 {
		parent = ref.path[:i+1]
	}
	after := ""
	for len(there) < most { // one request per disk, however many objects it has
		next := ""
		lerr := ref.store.List(ctx, parent, after, func(e blob.Entry) bool {
			next, _, _ = strings.Cut(strings.TrimPrefix(e.Key, parent), "/")
			return false
		})
		if lerr != nil || next == "" {
			break
		}
		there = append(there, next)
		after = parent + next + "/\xff"
	}
	e := errs.Wrap(errs.NotFound, err, "there is no disk %s", ref.url)
	if len(there) == 0 {
		return e.WithRemedy("make one: sluice disk create %s --size 8GiB", ref.url)
	}
	return e.WithRemedy("look among what is there: %s", strings.Join(there, ", "))
}

// openLog opens the store of a disk's log.
func openLog(ctx context.Context, url string) (blob.Store, error) { return blobs.Open(ctx, url) }
