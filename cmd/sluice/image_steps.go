package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// steps prints the progress of a slow command: on a terminal in one line that it updates, elsewhere
// in a line per step. It prints nothing within the first second. Safe for concurrent use.
type steps struct {
	name     string // of what is worked on
	out      io.Writer
	progress *mpb.Progress // nil without a terminal
	bar      *mpb.Bar

	mu      sync.Mutex
	began   time.Time // all of it
	what    string
	since   time.Time
	bytes   int64 // of a step that moves some
	total   int64 // 0: not known
	pending *time.Timer
}

func (d *deps) newSteps(ctx context.Context, name string) *steps {
	s := &steps{name: name, out: d.stderr, began: time.Now()}
	if terminal(d.stderr) == nil {
		return s
	}
	s.progress = mpb.NewWithContext(ctx, mpb.WithOutput(d.stderr),
		mpb.WithRenderDelay(after(noticeable)))
	s.bar = s.progress.New(0, mpb.NopStyle(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return s.line() })))
	return s
}

// after returns a channel that is closed after a while.
func after(wait time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(wait, func() { close(c) })
	return c
}

// step begins one, which ends the one before.
func (s *steps) step(what string) { s.begin(what, 0) }

func (s *steps) begin(what string, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
	s.what, s.since, s.bytes, s.total = what, time.Now(), 0, total
	if s.progress == nil {
		s.pending = time.AfterFunc(noticeable, func() { s.say(what) })
	}
}

// say prints the line of a step that goes on.
func (s *steps) say(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || s.what != what {
		return
	}
	s.pending = nil
	fmt.Fprintf(s.out, "%s: %s (after %s)\n", s.name, what, time.Since(s.began).Round(time.Second))
}

func (s *steps) stopLocked() {
	if s.pending != nil {
		s.pending.Stop()
		s.pending = nil
	}
}

// line is what a terminal shows now.
func (s *steps) line() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.what == "" {
		return s.name
	}
	line := fmt.Sprintf("%s: %s, %s", s.name, s.what, time.Since(s.since).Round(time.Second))
	switch {
	case s.total > 0:
		line += fmt.Sprintf(", %s of %s", byteCount(s.bytes), byteCount(s.total))
	case s.bytes > 0:
		line += ", " + byteCount(s.bytes)
	}
	return line
}

// reader returns r. The given step lasts until r has been read, and is followed by the next one.
func (s *steps) reader(r io.Reader, what string, total int64, next string) io.Reader {
	s.begin(what, total)
	return &stepReader{r: r, s: s, next: next}
}

type stepReader struct {
	r    io.Reader
	s    *steps
	next string
	once sync.Once
}

// Read implements io.Reader.
func (r *stepReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.s.mu.Lock()
	r.s.bytes += int64(n)
	r.s.mu.Unlock()
	if err != nil {
		r.once.Do(func() { r.s.step(r.next) })
	}
	return n, err
}

// end takes the line away. Nothing is printed after it. It may be called again.
func (s *steps) end() {
	s.mu.Lock()
	s.stopLocked()
	s.what = ""
	s.mu.Unlock()
	if s.progress != nil && s.bar.IsRunning() {
		s.bar.Abort(true)
		s.progress.Wait()
	}
}
