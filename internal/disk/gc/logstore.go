package gc

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// logStore is the log store of a disk.
type logStore struct {
	store blob.Store
	uid   string
	close func()
}

// logStores lists the log stores of all disks that have one. Heads were read before, so that what
// they call superseded is. Nothing else refers to a log store; one that isn't the disk's, or can't
// be read, stops the collector all the same.
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
		return errs.New(errs.Unsupported, "it can't be reached from here").
			WithRemedy("collect where it can be: sluice disk collect")
	}
	store, err := m.c.opts.OpenLog(ctx, h.LogStore.URL)
	if err != nil {
		return err
	}
	s := &logStore{store: decorate.Retry(decorate.Whole(store), decorate.DefaultRetry()),
		uid: h.UID, close: func() {
			_ = store.Close()
		}}
	m.mu.Lock()
	m.logs[d.path] = s
	m.mu.Unlock()
	id, err := s.identity(ctx, d)
	if err != nil {
		return err
	}
	if why := disk.ElsewhereLog(id, h.LogStore.URL, m.c.opts.Pool, d.path); why != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.c.report.note("the log of %s is left alone: %v; if the pool was moved: a fork of the "+
			"disk has a log of its own", d.path, why)
		return nil
	}
	var found []object
	var unknown Tally
	if err := s.store.List(ctx, format.KeyRunLog.Folder(h.UID), "", func(e blob.Entry) bool {
		if k, ok := format.ParseLogKey(strings.TrimPrefix(e.Key, h.UID+"/")); ok {
			found = append(found, object{k, e.Size})
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

// identity reads what tells whose log it is, and fails unless it is that of the disk.
func (s *logStore) identity(ctx context.Context, d *poolDisk) (*format.LogIdentity, error) {
	h := d.first
	key := format.Key{Kind: format.KeyIdentity}.In(h.UID)
	obj, err := s.store.Get(ctx, key, blob.All())
	if errs.Is(err, errs.NotFound) {
		return nil, errs.Wrap(errs.NotFound, err, "it has nothing of the disk").
			WithRemedy("bring the log store back; a disk that is being destroyed is gone soon: "+
				"if that was cut short, sluice disk destroy %s once more", d.path)
	}
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	id, err := format.DecodeLogIdentity(obj.Data)
	if err == nil && (id.UID != h.UID || id.Binding != h.LogStore.Binding) {
		err = errs.New(errs.Corrupt, "it holds the log of another disk, %s, which was made at %s",
			id.ID, id.Path)
	}
	return id, err
}

// closeLogs closes all log stores.
func (m *mark) closeLogs() {
	for _, s := range m.logs {
		s.close()
	}
}

// place returns the store and the key of an object of a disk.
func (m *mark) place(d *poolDisk, o *object) (blob.Store, string) {
	if o.second() {
		s := m.logs[d.path]
		return s.store, o.In(s.uid)
	}
	return m.c.store, o.In(d.path)
}
