package gc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// secondLog begins, in marks, the keys of what is in a disk's log store. In there they are below <uid>/log/.
const secondLog = "log-store/"

// logStore is the log store of a disk.
type logStore struct {
	store blob.Store
	uid   string
	close func()
}

func (s *logStore) key(o *object) string {
	return s.uid + "/log/" + o.secondRel()
}

// secondRel returns the key of an object in a log store below <uid>/log/.
func (o *object) secondRel() string { return fmt.Sprintf("%016x-%s/%016x", o.epoch, o.name, o.n) }

// logStores lists the log stores of all disks that have one. Heads were read before, so that what they call superseded
// is. Nothing else refers to a log store; one that isn't the disk's, or can't be read, stops the collector all the same.
func (m *mark) logStores(ctx context.Context) error {
	var paths []string
	for _, path := range slices.Sorted(maps.Keys(m.disks)) {
		if h := m.disks[path].first; h != nil && h.LogStore != nil {
			paths = append(paths, path)
		}
	}
	return each(ctx, m, "listing logs", paths, func(ctx context.Context, path string) error {
		d := m.disks[path]
		url := d.first.LogStore.URL
		if err := m.listLog(ctx, d); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "log store %s of %s", url, path)
		}
		return nil
	})
}

func (m *mark) listLog(ctx context.Context, d *poolDisk) error {
	h := d.first
	if m.c.opts.OpenLog == nil {
		return errs.New(errs.Unsupported, "it can't be reached from here").WithRemedy("collect where it can be: sluice disk collect")
	}
	store, err := m.c.opts.OpenLog(ctx, h.LogStore.URL)
	if err != nil {
		return err
	}
	s := &logStore{store: decorate.Retry(decorate.Whole(store), decorate.DefaultRetry()), uid: h.UID, close: func() { _ = store.Close() }}
	m.mu.Lock()
	m.logs[d.path] = s
	m.mu.Unlock()
	obj, err := s.store.Get(ctx, h.UID+"/disk", blob.All())
	if errs.Is(err, errs.NotFound) {
		return errs.Wrap(errs.NotFound, err, "it has nothing of the disk").
			WithRemedy("bring the log store back; a disk that is being destroyed is gone soon: if that was cut short, sluice disk destroy %s once more", d.path)
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "read %s", h.UID+"/disk")
	}
	id, err := format.DecodeLogIdentity(obj.Data)
	if err == nil && (id.UID != h.UID || id.Binding != h.LogStore.Binding) {
		err = errs.New(errs.Corrupt, "it holds the log of another disk, %s, which was made at %s", id.ID, id.Path)
	}
	if err != nil {
		return err
	}
	if why := disk.ElsewhereLog(id, h.LogStore.URL, m.c.opts.Pool, d.path); why != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.c.report.note("the log of %s is left alone: %v; if the pool was moved: a fork of the disk has a log of its own", d.path, why)
		return nil
	}
	var found []object
	var unknown Tally
	if err := s.store.List(ctx, h.UID+"/log/", "", func(e blob.Entry) bool {
		if o, ok := parseSecond(strings.TrimPrefix(e.Key, h.UID+"/log/")); ok {
			o.size = e.Size
			found = append(found, o)
		} else {
			unknown.add(e.Size)
		}
		return true
	}); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "list it")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d.objects = append(d.objects, found...)
	m.unknown.Objects += unknown.Objects
	m.unknown.Bytes += unknown.Bytes
	for _, o := range found {
		m.c.report.Objects.add(o.size)
	}
	m.c.report.Objects.Objects += unknown.Objects
	m.c.report.Objects.Bytes += unknown.Bytes
	return nil
}

// parseSecond parses <epoch>-<session>/<seq>.
func parseSecond(rel string) (o object, ok bool) {
	run, seq, ok := strings.Cut(rel, "/")
	epoch, session, ok2 := strings.Cut(run, "-")
	o.name, o.kind, o.second = strings.Clone(session), kindLog, true
	var good, good2 bool
	o.epoch, good = hex(epoch, 16)
	o.n, good2 = hex(seq, 16)
	return o, ok && ok2 && good && good2 && session != "" && rel == o.secondRel()
}

// closeLogs closes all log stores.
func (m *mark) closeLogs() {
	for _, s := range m.logs {
		s.close()
	}
}

// place returns the store and the key of an object of a disk.
func (m *mark) place(d *poolDisk, o *object) (blob.Store, string) {
	if o.second {
		s := m.logs[d.path]
		return s.store, s.key(o)
	}
	return m.c.store, d.path + "/" + o.rel()
}
