package disk

import (
	"cmp"
	"context"
	"sync"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The log of a disk may be in a second store, which is faster or nearer than the one of all its
// other objects. What is there is a log and nothing else: no map refers to it. The content of log
// objects stays in memory until packed segments of the disk's own store have it (destage.go). After
// a crash it is read from the log store once more. So checkpoints, forks and readers need nothing
// of the log store, and losing it loses the end of the log.

// OpenStore opens the object store at a URL.
type OpenStore func(ctx context.Context, url string) (blob.Store, error)

// logPlace is an open log store that is known to be the disk's.
type logPlace struct {
	at    format.LogStore
	uid   string
	store *store.Client
	close func()
}

// newLogStore binds a new disk, whose head is h, to a log store, and writes its identity there. The
// caller calls done in the end, which removes the identity if it is told to. A crash before that
// leaves one small object that nobody looks for.
func newLogStore(
	ctx context.Context, h *format.Head, url, pool string, open OpenStore,
) (done func(ctx context.Context, remove bool), err error) {
	if url == "" {
		return func(context.Context, bool) {}, nil
	}
	h.SetLogStore(&format.LogStore{URL: url, Binding: newNonce()})
	store, err := openLogStore(ctx, h, open)
	if err != nil {
		return nil, err
	}
	client, key := oneShot(store), identityKey(h.UID)
	body, err := format.Encode(&format.LogIdentity{Version: format.Version, UID: h.UID, ID: h.ID,
		Path: h.Lineage[0].Path, Pool: pool,
		Binding: h.LogStore.Binding, Created: h.Created})
	if err == nil {
		err = client.PutNew(ctx, key, body)
	}
	if err == nil {
		err = provesWriteOnce(ctx, client, h.UID)
	}
	if err != nil {
		_ = store.Close()
		return nil, ofLogStore(url, err)
	}
	return func(ctx context.Context, remove bool) {
		if remove {
			_ = client.Remove(ctx, key)
			_ = client.Remove(ctx, onceKey(h.UID))
		}
		_ = store.Close()
	}, nil
}

// openLogStore opens a head's log store, and reads nothing of it yet.
func openLogStore(ctx context.Context, h *format.Head, open OpenStore) (blob.Store, error) {
	if open == nil {
		return nil, errs.New(errs.Unsupported,
			"disk %s has its log in a second store, %s, which can't be reached from here",
			h.ID, h.LogStore.URL).
			WithRemedy("use sluice disk where that store can be reached; machines need a disk " +
				"without one: fork a checkpoint of it")
	}
	store, err := open(ctx, h.LogStore.URL)
	if err != nil {
		return nil, ofLogStore(h.LogStore.URL, err)
	}
	return store, nil
}

// ofLogStore wraps an error with the log store that it is about.
func ofLogStore(url string, err error) error {
	e := errs.Wrap(errs.KindOf(err), err, "log store %s", url)
	if errs.RemedyOf(err) == "" && errs.Is(err, errs.Unavailable) {
		return e.WithRemedy("check the log store and the way to it; what the disk's newest map " +
			"has can be read without: sluice disk mount or serve, --read-only")
	}
	return e
}

// verifyLog returns nil if a log store is the one that a disk was bound to, and can be written. It
// must also refuse to write an object twice. It changes nothing that tells of the disk. Above all
// it writes no identity, which a Destroy may have removed since.
func verifyLog(ctx context.Context, client *store.Client, h *format.Head) error {
	url := h.LogStore.URL
	obj, err := client.Get(ctx, identityKey(h.UID), blob.All())
	if errs.Is(err, errs.NotFound) {
		return errs.Wrap(errs.Corrupt, err,
			"log store %s has nothing of disk %s: it is another store, or was emptied", url, h.ID).
			WithRemedy("bring the store back; what the disk's newest map has can be read " +
				"without: sluice disk mount or serve, --read-only")
	}
	if err != nil {
		return ofLogStore(url, err)
	}
	id, err := format.DecodeLogIdentity(obj.Data)
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "%s in log store %s", identityKey(h.UID), url)
	}
	if id.UID != h.UID || id.Binding != h.LogStore.Binding {
		return errs.New(errs.Conflict,
			"log store %s holds the log of another disk, %s, which was made at %s",
			url, id.ID, id.Path).
			WithRemedy("bring back the store that the disk was made with")
	}
	if err := provesWriteOnce(ctx, client, h.UID); err != nil {
		return ofLogStore(url, err)
	}
	return nil
}

// sameLog returns nil if the log that was just read to its end was whole all the time.
func (d *Disk) sameLog(ctx context.Context) error {
	if d.logPlace == nil {
		return nil
	}
	_, err := d.logStore.Get(ctx, identityKey(d.logPlace.uid), blob.All())
	if errs.Is(err, errs.NotFound) {
		return errs.Wrap(errs.Corrupt, err, "log store %s was emptied while it was read",
			d.logPlace.at.URL).
			WithRemedy("a disk that is being destroyed can't be attached; else bring the store " +
				"back")
	}
	return err
}

// provesWriteOnce returns nil if the store refuses a second write of an object. A store that
// accepts it would let a writer of an old epoch overwrite a fence. It takes two requests the first
// time, for an object that has no other purpose, and then one.
func provesWriteOnce(ctx context.Context, client *store.Client, uid string) error {
	key := onceKey(uid)
	for range 2 {
		err := client.PutIfAbsent(ctx, key, []byte("written once\n"))
		if errs.Is(err, errs.Conflict) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errs.New(errs.Unsupported,
		"it accepts a second write of an object that may be written once").
		WithRemedy("use a store with conditional writes (If-None-Match)")
}

// useLog makes the log store that a head names the place of the log, or the disk's own store if it
// names none. It runs before the attach changes anything.
func (d *Disk) useLog(ctx context.Context, h *format.Head) error {
	if d.logPlace != nil && h.LogStore != nil && d.logPlace.uid == h.UID &&
		d.logPlace.at.URL == h.LogStore.URL &&
		d.logPlace.at.Binding == h.LogStore.Binding {
		return nil
	}
	d.leaveLog()
	if h.LogStore == nil {
		return nil
	}
	if len(h.LogStore.Runs) >= format.MaxLogRuns {
		return errs.New(errs.Exhausted, "disk %s was attached %d times without a map being written",
			h.ID, len(h.LogStore.Runs)).
			WithRemedy("find out why its writers die; what its newest map has can be read: " +
				"sluice disk mount or serve, --read-only")
	}
	store, err := openLogStore(ctx, h, d.opts.OpenLog)
	if err != nil {
		return err
	}
	var once sync.Once
	place := &logPlace{at: *h.LogStore, uid: h.UID, store: newClient(store, d.opts.Tuning),
		close: func() { once.Do(func() { _ = store.Close() }) }}
	place.store.LogStoreOf(d.store, h.LogStore.URL)
	if err := verifyLog(ctx, place.store, h); err != nil {
		place.close()
		return errs.Wrap(errs.KindOf(err), err, "attach %s", d.path)
	}
	d.logPlace, d.logStore = place, place.store
	return nil
}

// leaveLog closes the log store, if there is one.
func (d *Disk) leaveLog() {
	if d.logPlace != nil {
		d.logPlace.close()
	}
	d.logPlace, d.logStore = nil, d.store
}

// logKey returns the key of a log object, in the store of the log. Its epoch is this session's, or
// one that may have to be replayed.
func (d *Disk) logKey(epoch, seq uint64) (string, error) {
	if d.logPlace == nil {
		return logKey(d.path, epoch, seq), nil
	}
	session, ok := d.logPlace.at.Session(epoch)
	if !ok {
		return "", errs.New(errs.Corrupt, "the head doesn't tell whose the log of epoch %d is",
			epoch)
	}
	return secondLogKey(d.logPlace.uid, epoch, session, seq), nil
}

// LogDetails is what is in a disk's log store.
type LogDetails struct {
	URL string `json:"url"`
	// log objects and fences; those before the head's position are garbage
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// InspectLog counts what is in the log store of a head that has one. It checks first that this is
// the disk's. Errors are those of Attach that concern it.
func InspectLog(ctx context.Context, h *format.Head, open OpenStore) (*LogDetails, error) {
	store, err := openLogStore(ctx, h, open)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	client := oneShot(store)
	if err := verifyLog(ctx, client, h); err != nil {
		return nil, err
	}
	out := &LogDetails{URL: h.LogStore.URL}
	begin := func() { out.Objects, out.Bytes = 0, 0 }
	err = client.List(ctx, format.KeyRunLog.Folder(h.UID), "", begin, func(e blob.Entry) bool {
		out.Objects++
		out.Bytes += e.Size
		return true
	})
	if err != nil {
		return nil, ofLogStore(out.URL, err)
	}
	return out, nil
}

// ElsewhereLog returns nil if the log store with this identity belongs to the disk at path in pool.
// Else it returns why nobody may remove any of that log. The disk may be a copy of the one to which
// the log store was bound, with the same head. The other one may need what the copy doesn't.
func ElsewhereLog(id *format.LogIdentity, url, pool, path string) error {
	if id.Path == path && (id.Pool == "" || id.Pool == pool) {
		return nil
	}
	return errs.New(errs.Conflict,
		"log store %s has the log of %s in %s; the disk here may be a copy of it", url, id.Path,
		cmp.Or(id.Pool, "the same pool"))
}
