package audit

import (
	"context"
	"encoding/base64"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Query says which entries are wanted.
type Query struct {
	Since, Until time.Time // zero: no bound
	Who          string    // exactly the name of a subject, or a token's id
	What         string    // a part of the call, or of an object
	Limit        int       // most entries in the answer
	After        string    // Page.Next of the answer before
}

// Page is a part of the answer, oldest first.
type Page struct {
	Entries []Entry
	Next    string // "": that was all
	// Break is the first place at which what was read for this page isn't what was written. What
	// is elsewhere, only Verify tells.
	Break *Break
}

// objectsPerPage bounds what one answer reads. It may have few entries, or none, and go on.
const objectsPerPage = 200

// List returns entries of the chain. What is still in the spool, for about a second, isn't among
// them.
func (l *Log) List(ctx context.Context, q Query) (page Page, err error) {
	head, err := l.chain.head(ctx)
	if err != nil {
		return Page{}, err
	}
	at, skip, err := decodePlace(q.After)
	if err != nil {
		return Page{}, err
	}
	if q.After == "" {
		if at, err = l.firstSince(ctx, q.Since, head.Number); err != nil {
			return Page{}, err
		}
	}
	page = Page{Entries: []Entry{}}
	w, err := l.walkFrom(ctx, at, head)
	if err != nil {
		return Page{}, err
	}
	defer func() { page.Break = w.report.Break }()
	for read := 0; at <= head.Number; at, skip = at+1, 0 {
		if read++; read > objectsPerPage {
			page.Next = encodePlace(at, 0)
			return page, nil
		}
		data, err := l.chain.get(ctx, at)
		if err != nil && !errs.Is(err, errs.NotFound) {
			return Page{}, err
		}
		if w.report.Break == nil {
			w.step(at, data) // none: it is missing
		}
		_, entries, err := parse(data)
		if err != nil {
			continue
		}
		for i, e := range entries {
			switch {
			case i < skip || !q.wants(e):
			case len(page.Entries) == q.Limit:
				page.Next = encodePlace(at, i)
				return page, nil
			default:
				page.Entries = append(page.Entries, e)
			}
		}
	}
	return page, nil
}

// walkFrom begins to check the chain at an object, by the one before it.
func (l *Log) walkFrom(ctx context.Context, at int64, head Mark) (*walk, error) {
	w := &walk{fleet: l.chain.fleet, head: head}
	if at == 1 || at > head.Number {
		return w, nil
	}
	data, err := l.chain.get(ctx, at-1)
	if err != nil && !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	h, entries, err := parse(data)
	if err != nil {
		w.breakAt(at-1, "it is missing, or can't be read")
		return w, nil
	}
	w.mark = Mark{Number: at - 1, Hash: hashOf(data), Seq: h.First + int64(len(entries)) - 1}
	return w, nil
}

func (q *Query) wants(e Entry) bool {
	if !q.Since.IsZero() && e.Time.Before(q.Since) ||
		!q.Until.IsZero() && !e.Time.Before(q.Until) ||
		q.Who != "" && q.Who != e.Subject && q.Who != e.Token {
		return false
	}
	return q.What == "" ||
		strings.Contains(e.Call+"\n"+strings.Join(e.Objects, "\n"), q.What)
}

// firstSince returns the object with which to begin: the one before the first whose entries are all
// later, because calls that were answered together may be out of order.
func (l *Log) firstSince(ctx context.Context, since time.Time, last int64) (int64, error) {
	if since.IsZero() {
		return 1, nil
	}
	var failed error
	n := sort.Search(int(last), func(i int) bool {
		data, err := l.chain.get(ctx, int64(i)+1)
		if err != nil && !errs.Is(err, errs.NotFound) {
			failed = err
		}
		if err != nil {
			return false
		}
		_, entries, err := parse(data)
		return err == nil && len(entries) > 0 && !entries[0].Time.Before(since)
	})
	return max(int64(n), 1), failed
}

const placePrefix = "a1:"

func encodePlace(number int64, index int) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s%d:%d", placePrefix, number,
		index))
}

func decodePlace(s string) (number int64, index int, err error) {
	if s == "" {
		return 1, 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		_, err = fmt.Sscanf(string(raw), placePrefix+"%d:%d", &number, &index)
	}
	if err != nil || number < 1 || index < 0 {
		return 0, 0, errs.New(errs.Invalid, "page token %q is none of ours", s).
			WithRemedy("pass on the field next of the answer before, unchanged")
	}
	return number, index, nil
}
