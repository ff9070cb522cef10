package gc

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// markPrefix begins the keys of stored marks: collector/mark-<ulid>.
const markPrefix = "collector/mark-"

func isMark(key string) bool { return strings.HasPrefix(key, markPrefix) }

// marksPerGrace is how many marks are kept of one grace: who collects often need not keep them all.
const marksPerGrace = 4

// storedMark is a mark of an earlier collection.
type storedMark struct {
	key  string
	mark *format.Mark
}

// loadMarks reads the marks of earlier collections. One of the future is of a clock that is wrong,
// and is not used.
func (c *collector) loadMarks(ctx context.Context) error {
	var keys []string
	if err := c.listAll(ctx, markPrefix, func(e blob.Entry) {
		keys = append(keys, e.Key)
	}); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "list the marks of earlier collections")
	}
	for _, key := range keys {
		b, err := c.get(ctx, key)
		if errs.Is(err, errs.NotFound) {
			continue // another collector needs it no more
		}
		if err != nil {
			return err
		}
		m, err := c.codec.DecodeMark(b)
		if err != nil {
			return errs.Wrap(errs.KindOf(err), err, "%s", key)
		}
		if !m.Created.After(c.report.Started) {
			c.past = append(c.past, storedMark{key, m})
		}
	}
	slices.SortFunc(c.past, func(a, b storedMark) int {
		return a.mark.Created.Compare(b.mark.Created)
	})
	for i := range c.past {
		if c.report.Started.Sub(c.past[i].mark.Created) >= c.opts.Grace {
			c.base = &c.past[i]
		}
	}
	for i := range c.past {
		if &c.past[i] != c.base {
			c.past[i].mark.Disks = nil // of these only the documents are looked at
		}
	}
	return nil
}

// next returns when the newest mark that there will be is old enough.
func (c *collector) next(m *mark) time.Time {
	if n := len(c.past); n > 0 && !c.wanted(m) {
		return c.past[n-1].mark.Created.Add(c.opts.Grace)
	}
	return m.created.Add(c.opts.Grace)
}

// wanted reports whether a mark is worth keeping beside those that there are.
func (c *collector) wanted(m *mark) bool {
	n := len(c.past)
	return n == 0 || m.created.Sub(c.past[n-1].mark.Created) >= c.opts.Grace/marksPerGrace
}

func (c *collector) putMark(ctx context.Context, doc *format.Mark) error {
	body, err := c.codec.EncodeMark(doc)
	if err != nil {
		return err
	}
	// Nobody else writes this key, so that writing it twice does no harm.
	key := markPrefix + strings.ToLower(ulid.Make().String())
	if _, err := c.store.Put(ctx, key, body); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "keep the mark for the next collection")
	}
	return nil
}

// seen returns the keys of all heads and documents that there are, and the nonces of pins. A later
// listing may lack them.
func (m *mark) seen() map[string]string {
	keys := map[string]string{}
	for path, d := range m.disks {
		if d.first != nil || d.last != nil {
			keys[headKey(path)] = ""
		}
	}
	for key := range m.ckpts {
		keys[key] = ""
	}
	for key := range m.refs {
		keys[key] = ""
	}
	for key, p := range m.pins {
		keys[key] = p.Nonce
	}
	return keys
}

// storeMark keeps the mark for later collections, and removes those that none needs any more: with
// a newer one that is old enough too. Of two collectors each keeps what it needs; at worst there
// are more marks than needed.
func (c *collector) storeMark(ctx context.Context, m *mark) error {
	if c.wanted(m) {
		doc := &format.Mark{Created: m.created, Documents: m.seen()}
		for _, path := range slices.Sorted(maps.Keys(m.disks)) {
			d := m.disks[path]
			x := format.MarkedDisk{Path: path, UID: d.uid()}
			for _, o := range d.garbage {
				x.Garbage = append(x.Garbage, o.rel())
			}
			if len(x.Garbage) > 0 {
				doc.Disks = append(doc.Disks, x)
			}
		}
		if err := c.putMark(ctx, doc); err != nil {
			return err
		}
	}
	for i := range c.past {
		if c.base == nil || &c.past[i] == c.base {
			break
		}
		if err := c.store.Delete(ctx, c.past[i].key); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "remove an old mark")
		}
	}
	return nil
}
