package audit

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Report is what Verify found.
type Report struct {
	Objects, Entries int64 // that were checked, up to a break
	First, Last      time.Time
	Hash             string // of the last object: noted elsewhere, it proves all before it
	Break            *Break // nil: the chain is whole
}

// Break is the first place at which the chain isn't what was written.
type Break struct {
	Object int64 // its number
	Why    string
}

// readAhead is how many objects are read at a time.
const readAhead = 16

// Verify walks the whole chain. It finds each object and entry that was removed, changed, moved or
// doubled, and a tail that was cut before what the fleet's state says was written.
func (l *Log) Verify(ctx context.Context) (Report, error) {
	// The head first: what is written meanwhile only makes the chain longer than it says.
	head, err := l.chain.head(ctx)
	if err != nil {
		return Report{}, err
	}
	numbers, odd, err := l.numbers(ctx)
	if err != nil {
		return Report{}, err
	}
	w := walk{fleet: l.chain.fleet, head: head}
	if odd != "" {
		w.report.Break = &Break{Why: odd}
	}
	for at := 0; at < len(numbers) && w.report.Break == nil; at += readAhead {
		window := numbers[at:min(at+readAhead, len(numbers))]
		bodies := make([][]byte, len(window))
		group, groupCtx := errgroup.WithContext(ctx)
		for i, n := range window {
			group.Go(func() (err error) {
				if bodies[i], err = l.chain.get(groupCtx, n); errs.Is(err, errs.NotFound) {
					err = nil // removed since it was listed
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return Report{}, fmt.Errorf("read the audit log: %w", err)
		}
		for i, n := range window {
			if w.report.Break == nil {
				w.step(n, bodies[i])
			}
		}
	}
	if w.report.Break == nil && w.mark.Number < head.Number {
		w.breakAt(w.mark.Number+1, "it is missing, and so is what followed it: %d objects were "+
			"written", head.Number)
	}
	w.report.Hash = w.mark.Hash
	return w.report, nil
}

// numbers lists the chain's objects. What is no object of it is told in odd.
func (l *Log) numbers(ctx context.Context) (all []int64, odd string, err error) {
	for last := ""; ; {
		before := last
		err := l.chain.store.List(ctx, l.chain.prefix(), last, func(e blob.Entry) bool {
			last = e.Key
			if n, ok := l.chain.numberOf(e.Key); ok {
				all = append(all, n)
			} else if odd == "" {
				odd = fmt.Sprintf("%s is no object of the chain", e.Key)
			}
			return true
		})
		if err != nil {
			return nil, "", fmt.Errorf("list the audit log: %w", err)
		}
		if last == before {
			return all, odd, nil
		}
	}
}

// walk goes through the chain, object by object.
type walk struct {
	fleet  string
	head   Mark
	mark   Mark // of the object before
	report Report
	// without is the mark and the report without the object before.
	without struct {
		mark   Mark
		report Report
	}
}

func (w *walk) breakAt(number int64, format string, args ...any) {
	w.report.Break = &Break{Object: number, Why: fmt.Sprintf(format, args...)}
}

// step checks one object against the one before it.
func (w *walk) step(number int64, data []byte) {
	want := w.mark.Number + 1
	if number != want || data == nil {
		w.breakAt(want, "it is missing")
		return
	}
	h, entries, err := parse(data)
	hash := hashOf(data)
	switch {
	case err != nil:
		w.breakAt(number, "%s", err)
	case h.Number != number || h.Fleet != w.fleet:
		w.breakAt(number, "it says that it is object %d of fleet %q", h.Number, h.Fleet)
	case h.Before != w.mark.Hash && number > 1:
		// Which of the two was changed can't be told, so the one before proves nothing, either.
		w.mark, w.report = w.without.mark, w.without.report
		w.breakAt(number-1, "object %d doesn't follow it: one of the two was changed", number)
		return
	case h.Before != w.mark.Hash:
		w.breakAt(number, "it is the first, and says that it follows another")
	case h.First != w.mark.Seq+1:
		w.breakAt(number, "its first entry is number %d, and should be %d", h.First, w.mark.Seq+1)
	case number == w.head.Number && hash != w.head.Hash:
		w.breakAt(number, "it is not what the server has written")
	}
	for i, e := range entries {
		if w.report.Break == nil && e.Seq != h.First+int64(i) {
			w.breakAt(number, "entry %d of it has number %d", i+1, e.Seq)
		}
	}
	if w.report.Break != nil {
		return
	}
	w.without.mark, w.without.report = w.mark, w.report
	w.mark = Mark{Number: number, Hash: hash, Seq: w.mark.Seq + int64(len(entries))}
	w.report.Objects++
	w.report.Entries += int64(len(entries))
	if len(entries) > 0 {
		if w.report.First.IsZero() {
			w.report.First = entries[0].Time
		}
		w.report.Last = entries[len(entries)-1].Time
	}
}
