package simtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A store that lies says of some objects that it has stored them, and hasn't, and leaves some out
// of listings. What it is asked for once more it does. Whoever it lied to may die before that is
// noticed: then what was acknowledged since the last proof may be gone, or an attach may say so by
// name. What was proven must be there.

// liesAbout is what of a disk's objects may be lost.
var liesAbout = []string{"/log/", "/seg/", "/map/", "/ckpt/", "/refs/", "/pins/"}

// lie reports whether an object that is written is only acknowledged, and notes that it was. The
// next attempt is honest.
func (p *pool) lie(key string, body []byte, rng *rand.Rand) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.lost[key]; again || !p.lies || rng.IntN(12) > 0 ||
		!slices.ContainsFunc(liesAbout,
			func(part string) bool { return strings.Contains(key, part) }) {
		if again { // by its writer, which may die before that has arrived
			p.mended = true
			p.retried[key] = p.lost[key]
			delete(p.lost, key)
		}
		return false
	}
	p.lost[key] = body
	p.counts.lies++
	return true
}

// bringBack stores what was lost and is missing now, why says which, as one does who has a backup,
// and reports whether there was anything, or its writer, which still lives, has done so first.
// Documents stay away.
func (p *pool) bringBack(why string) bool {
	p.mu.Lock()
	lost, n := p.lost, 0
	if p.mended {
		n = 1
	}
	for key, body := range p.retried {
		if strings.Contains(why, key) {
			lost[key] = body
		}
	}
	p.lost, p.mended = map[string][]byte{}, false
	p.mu.Unlock()
	for key, body := range lost {
		if strings.Contains(key, "/log/") || strings.Contains(key, "/seg/") ||
			strings.Contains(key, "/map/") {
			_, err := p.Store.PutIfAbsent(context.Background(), key, body)
			if err == nil {
				n++
			}
		}
	}
	return n > 0
}

// leaveOut takes some entries out of a listing.
func leaveOut(list []blob.Entry, rng *rand.Rand) []blob.Entry {
	return slices.DeleteFunc(list, func(blob.Entry) bool { return rng.IntN(4) == 0 })
}

// brokeByLies reports whether an error tells of what the store has lost, which is brought back
// then.
func (w *world) brokeByLies(err error) bool {
	if !w.p.lies || !errs.Is(err, errs.Corrupt) && !errs.Is(err, errs.NotFound) {
		return false
	}
	found := w.p.bringBack(err.Error())
	if w.p.logs != nil && w.p.logs.bringBack(err.Error()) {
		found = true
	}
	w.log("  the store had lost something, which is brought back: %v", found)
	return found
}

// prove has a session see that the store has what it has written.
func (w *world) prove(s *session) {
	n := s.count()
	if err := s.d.Settle(w.ctx); err != nil {
		w.ended(s, err)
	} else if err := s.keep(n); err != nil && !s.v.dead.Load() {
		w.violate("%v", err)
	}
}
