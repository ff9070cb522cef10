package audit

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// write does what is asked of the writer until ctx ends: lines that came while others were written
// go to the disk together.
func (l *Log) write(ctx context.Context) error {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			l.mu.Lock()
			l.done = true
			l.mu.Unlock()
			l.writeWaiting()
			return nil
		}
		l.writeWaiting()
	}
}

func (l *Log) writeWaiting() {
	l.mu.Lock()
	todo := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	var lines []line
	for _, r := range todo {
		if r.do == nil {
			lines = append(lines, r.line)
		}
	}
	err := l.spool.write(lines)
	if err == nil && l.spool.ended >= l.cfg.BatchBytes {
		// What was written is durable, whatever becomes of the cut; it is tried again.
		if cutErr := l.spool.cut(); cutErr != nil {
			l.log.Warn("audit log not cut", "error", cutErr)
		} else {
			signal(l.full)
		}
	}
	answers := make([]error, len(todo))
	for i, r := range todo {
		answers[i] = err
		if r.do != nil {
			answers[i] = r.do(l.spool)
		}
	}
	l.mu.Lock()
	l.status.SpoolBytes = l.spool.total()
	l.status.Broken = ""
	if err != nil {
		l.status.Broken = err.Error()
	}
	for _, line := range lines {
		if line.Ended != nil && err == nil {
			l.status.Entries++
		}
	}
	l.mu.Unlock()
	for i, r := range todo {
		r.answer <- answers[i]
	}
}

// Bounds of the time between two attempts to reach the store.
const (
	retryFirst = 200 * time.Millisecond
	retryLast  = 5 * time.Second
)

// ship makes objects of segments until ctx ends.
func (l *Log) ship(ctx context.Context) error {
	tick := time.NewTicker(l.cfg.BatchEvery)
	defer tick.Stop()
	retry := backoff.New(retryFirst, retryLast)
	for {
		more, err := l.shipOne(ctx)
		if ctx.Err() != nil {
			return nil
		}
		l.noteShipped(err)
		if err != nil {
			if backoff.Sleep(ctx, retry.Next()) != nil {
				return nil
			}
			continue
		}
		retry.Reset()
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.full:
		}
	}
}

func (l *Log) noteShipped(err error) {
	l.mu.Lock()
	was := l.status.Why
	if err == nil {
		l.status.Since, l.status.Why = time.Time{}, ""
	} else {
		l.status.Why = err.Error()
		if l.status.Since.IsZero() {
			l.status.Since = time.Now()
		}
	}
	now := l.status.Why
	l.mu.Unlock()
	switch {
	case was == "" && now != "":
		l.log.Warn("audit log waits for the store", "error", err)
	case was != "" && now == "":
		l.log.Info("audit log goes on")
	}
}

// shipOne makes an object of the oldest segment that has ended; more: there was one.
func (l *Log) shipOne(ctx context.Context) (more bool, err error) {
	var number int64
	var path string
	if err := l.ask(request{do: func(s *spool) error {
		if s.oldest() == 0 {
			if err := s.cut(); err != nil {
				return err
			}
		}
		number = s.oldest()
		path = s.path(number)
		return nil
	}}); err != nil || number == 0 {
		return false, err
	}
	lines, _, err := readSegment(path)
	if err != nil {
		return false, err
	}
	var entries []Entry
	for _, line := range lines {
		if line.Ended != nil {
			entries = append(entries, *line.Ended)
		}
	}
	if len(entries) > 0 {
		if err := l.extend(ctx, entries); err != nil {
			return false, err
		}
	}
	return true, l.ask(request{do: func(s *spool) error { return s.drop(number) }})
}

// extend makes entries the next object, and keeps its mark, unless they are in the chain already. A
// crash between the two only has the same object made again.
func (l *Log) extend(ctx context.Context, entries []Entry) error {
	head, err := l.chain.head(ctx)
	if err != nil {
		return err
	}
	batch, err := json.Marshal(entries)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the audit log")
	}
	id := hashOf(batch)
	if head.Batch == id {
		return nil
	}
	next, err := l.chain.extend(ctx, head, entries)
	if err != nil {
		return err
	}
	next.Batch = id
	return l.chain.keepHead(ctx, next)
}
