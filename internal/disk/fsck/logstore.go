package fsck

import (
	"context"
	"maps"
	pathpkg "path"
	"slices"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// logStore is a second store, with the log of the disk.
type logStore struct {
	store   blob.Store
	close   func()
	objects map[string]int64 // of this disk: key → size
}

// openLog opens and lists the log store of a disk that has one. A store that is not the one that
// the disk was bound to is damage: an attach would refuse it.
func (c *checker) openLog(ctx context.Context) error {
	at := c.head.LogStore
	if at == nil {
		return nil
	}
	if c.opts.OpenLog == nil {
		return errs.New(errs.Unsupported,
			"disk %s has its log in a second store, %s, which can't be reached from here",
			c.path, at.URL)
	}
	store, err := c.opts.OpenLog(ctx, at.URL)
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "log store %s", at.URL)
	}
	c.second = &logStore{store: decorate.Retry(decorate.Whole(store), decorate.DefaultRetry()),
		objects: map[string]int64{},
		close:   func() { _ = store.Close() }}
	c.log.count(func(r *Report) { r.LogStore = at.URL })
	err = c.checkIdentity(ctx, at)
	if err == nil {
		err = c.second.store.List(ctx, c.head.UID+"/", "", func(e blob.Entry) bool {
			c.second.objects[e.Key] = e.Size
			return true
		})
	}
	if err != nil {
		c.closeLog()
		return errs.Wrap(errs.KindOf(err), err, "read log store %s", at.URL)
	}
	return nil
}

func (c *checker) closeLog() {
	if c.second != nil {
		c.second.close()
	}
}

func (c *checker) checkIdentity(ctx context.Context, at *format.LogStore) error {
	key := identityKey(c.head.UID)
	c.reach(key)
	c.reach(onceKey(c.head.UID))
	b, _, err := c.getFrom(ctx, c.second.store, key, blob.All())
	var id *format.LogIdentity
	if err == nil {
		id, err = format.DecodeLogIdentity(b)
	}
	if err == nil && (id.UID != c.head.UID || id.Binding != at.Binding) {
		err = errs.New(errs.Corrupt, "it is of disk %s, which was made at %s", id.ID, id.Path)
	}
	if err != nil {
		return c.found(at.URL+"/"+key, err)
	}
	return nil
}

// logs returns the logs that are there. Those of sessions that the head doesn't name are nobody's,
// but for their fences.
func (s *logStore) logs(c *checker) []*epochLog {
	byDir := map[string]*epochLog{}
	var out []*epochLog
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if key == identityKey(c.head.UID) || key == onceKey(c.head.UID) {
			continue
		}
		epoch, session, seq, ok := secondLog(c.head.UID, key)
		if !ok {
			c.log.damage(key, "is not the name of a log object")
			continue
		}
		dir := pathpkg.Dir(key)
		l := byDir[dir]
		if l == nil {
			own, named := c.head.LogStore.Session(epoch)
			l = &epochLog{epoch: epoch, dir: dir, current: named &&
				own == session, store: s.store, sizes: s.objects}
			byDir[dir], out = l, append(out, l)
		}
		l.seqs = append(l.seqs, seq)
	}
	return out
}
