package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	noticeAfter = 1500 * time.Millisecond // without an answer, until somebody who waits is told
	noticeAgain = 15 * time.Second
)

// storeNotice tells who waits for a command that its store doesn't answer, while the command tries
// on.
type storeNotice struct {
	out  io.Writer
	name string

	mu    sync.Mutex
	limit time.Duration // how long is tried, in all; 0: not known
	done  bool
	open  int // requests under way
	since time.Time
	what  string // is tried
	why   error  // the store's last words; nil: none
	timer *time.Timer
}

// noticing returns a store whose silence is told, until the notice is ended or the store is closed.
func (d *deps) noticing(store blob.Store, name string) (blob.Store, *storeNotice) {
	n := &storeNotice{out: d.stderr, name: name, limit: defaultStallTimeout}
	return decorate.Observe(store, n.begin, n.end), n
}

func (n *storeNotice) begin(op decorate.Op, key string) func(error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open++
	n.arm(string(op) + " " + key)
	return n.answered
}

// arm has the silence told that begins now, if none has begun yet.
func (n *storeNotice) arm(what string) {
	if n.done || n.timer != nil {
		return
	}
	n.since, n.what, n.why = time.Now(), what, nil
	n.timer = time.AfterFunc(noticeAfter, n.tell)
}

// answered notes what a request has come to. Any answer but that of a store that can't be reached
// is one.
func (n *storeNotice) answered(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open--
	if errs.Is(err, errs.Unavailable) {
		n.why = err
		return
	}
	n.calm()
	if n.open > 0 {
		n.arm(n.what)
	}
}

func (n *storeNotice) calm() {
	if n.timer != nil {
		n.timer.Stop()
		n.timer = nil
	}
}

// tell says what is tried and what the store says, once now and then.
func (n *storeNotice) tell() {
	if text := n.text(); text != "" {
		fmt.Fprint(n.out, text)
	}
}

func (n *storeNotice) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done || n.timer == nil {
		return ""
	}
	n.timer.Reset(noticeAgain)
	why := "no answer yet"
	if n.why != nil {
		why = n.why.Error()
	}
	limit := ""
	if n.limit > 0 {
		limit = " for up to " + n.limit.String()
	}
	return fmt.Sprintf("store %s: %s: waiting for %s: %s\n  trying on%s; interrupt to give up\n",
		n.name, n.what, time.Since(n.since).Round(time.Second), why, limit)
}

// within says how long is tried, in all.
func (n *storeNotice) within(limit time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limit = limit
}

// end has nothing told any more.
func (n *storeNotice) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = true
	n.calm()
}
