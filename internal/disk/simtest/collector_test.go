package simtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// grace is the time between a collector's two marks.
const grace = 2 * staleness

// collector runs the collector of the pool. With a bug it sees the pool through a store that hides
// things from it.
type collector struct {
	store   blob.Store
	open    disk.OpenStore
	codec   *format.Codec
	deleted int
}

func newCollector(p *pool, c *client, codec *format.Codec) *collector {
	var s blob.Store = c
	switch p.bug {
	case collectFence, collectForeign, collectOnce, skipPins:
		s = &blinkered{client: c, codec: codec}
	}
	return &collector{store: s, open: c.openLog, codec: codec}
}

// step makes one collection. Nothing in the pool is broken, so that nothing but the store may stop
// it.
func (c *collector) step(ctx context.Context) (*gc.Report, error) {
	r, err := gc.Collect(ctx, c.store, gc.Options{Grace: grace, OpenLog: c.open})
	if r != nil {
		c.deleted += r.Freed.Total().Objects
	}
	if errs.Is(err, errs.Unavailable) {
		err = nil
	}
	return r, err
}

// blinkered shows a collector what makes it break one rule.
type blinkered struct {
	*client
	codec *format.Codec
}

const forged = "collector/mark-00000000000000000000000000"

func (b *blinkered) hidden(key string) bool {
	switch b.p.bug {
	case collectForeign:
		return strings.HasPrefix(key, "f/") || strings.Contains(key, "/refs/")
	case skipPins:
		return strings.Contains(key, "/pins/")
	}
	return false
}

func (b *blinkered) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if b.hidden(key) {
		return blob.Object{}, errs.New(errs.NotFound, "no object %s", key)
	}
	if key == forged {
		return b.forgery(ctx)
	}
	return b.client.Get(ctx, key, r)
}

// PutIfAbsent lets no reference be written again that was only hidden.
func (b *blinkered) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if b.hidden(key) {
		return "hidden", nil
	}
	return b.client.PutIfAbsent(ctx, key, body)
}

func (b *blinkered) List(ctx context.Context, prefix, after string,
	yield func(blob.Entry) bool) error {
	if b.p.bug == collectOnce && strings.HasPrefix(forged, prefix) && forged > after &&
		!yield(blob.Entry{Key: forged, Size: 1}) {
		return nil
	}
	if b.p.bug == collectOnce {
		return b.listOld(ctx, prefix, after, yield)
	}
	return b.client.List(ctx, prefix, after, func(e blob.Entry) bool {
		if b.p.bug == collectFence && strings.Contains(e.Key, "/log/") {
			e.Size += 1000 // no fence is that large
		}
		return b.hidden(e.Key) || yield(e)
	})
}

// listOld shows every listing as old as one may be, as far as checkpoints, references and pins go:
// a second mark, a grace later, would see what this one doesn't.
func (b *blinkered) listOld(ctx context.Context, prefix, after string,
	yield func(blob.Entry) bool) error {
	var list []blob.Entry
	err := b.client.List(ctx, prefix, after, func(e blob.Entry) bool {
		list = append(list, e)
		return true
	})
	old := map[string]bool{}
	for _, e := range b.p.before(slices.Clone(list), staleness) {
		old[e.Key] = true
	}
	for _, e := range list {
		document := strings.Contains(e.Key, "/ckpt/") || strings.Contains(e.Key, "/refs/") ||
			strings.Contains(e.Key, "/pins/")
		if err != nil || (!document || old[e.Key]) && !yield(e) {
			break
		}
	}
	return err
}

// forgery is a mark of long ago in which all there is now is garbage.
func (b *blinkered) forgery(ctx context.Context) (blob.Object, error) {
	m := &format.Mark{Created: time.Now().Add(-time.Hour), Documents: map[string]string{}}
	all := map[string][]string{}
	if err := b.p.Store.List(ctx, "", "", func(e blob.Entry) bool {
		e1 := strings.SplitN(e.Key, "/", 3)
		if len(e1) == 3 {
			path := e1[0] + "/" + e1[1]
			all[path] = append(all[path], e1[2])
		}
		return true
	}); err != nil {
		return blob.Object{}, err
	}
	for path, keys := range all {
		uid := ""
		if o, err := b.p.Store.Get(ctx, path+"/head", blob.All()); err == nil {
			h, err := format.DecodeHead(o.Data)
			if err != nil {
				return blob.Object{}, err
			}
			uid = h.UID
		}
		m.Disks = append(m.Disks, format.MarkedDisk{Path: path, UID: uid, Garbage: keys})
	}
	body, err := b.codec.EncodeMark(m)
	return blob.Object{Data: body, Size: int64(len(body)), ETag: "forged"}, err
}

// collect makes a collection beside what else happens.
func (w *world) collect() {
	w.start(w.coll, func() {
		destroyed := w.logDestroyed.Load()
		r, err := w.coll.step(w.ctx)
		freed := "nothing"
		if r != nil {
			freed = fmt.Sprint(r.Freed)
		}
		w.log("collect: freed %s, %v", freed, err)
		if err == nil && r != nil {
			err = w.doubted(r)
		}
		// a pool of which nothing is listed
		if err != nil && (w.brokeByLies(err) || w.p.lies && errs.Is(err, errs.NotFound)) {
			return
		}
		if err != nil && !(errs.Is(err, errs.Corrupt) && w.logDestroys.Load() > destroyed) {
			w.violate("the collector stopped: %v", err)
		}
	})
}
