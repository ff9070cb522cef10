package machine

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/servicelog"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const defaultLines = 100

// getLogs answers with the last lines of one service's log, or of all, in the order of their times.
// With follow=1 it goes on with each new line. Lines are "time service stream text".
func (p *Platform) getLogs(w http.ResponseWriter, r *http.Request) {
	now, _ := p.status.get()
	if now.Bind == nil || !p.services.started() {
		writeError(w, errs.New(errs.Unavailable,
			"the machine's services haven't been started yet").WithRemedy("try again in a moment"))
		return
	}
	logs, err := p.chooseLogs(r.URL.Query().Get("service"))
	if err != nil {
		writeError(w, err)
		return
	}
	lines := defaultLines
	if s := r.URL.Query().Get("lines"); s != "" {
		if lines, err = strconv.Atoi(s); err != nil {
			writeError(w, errs.New(errs.Invalid, "lines=%q is not a number", s))
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set(guestapi.HeaderInstance, string(now.Bind.Instance))
	if r.URL.Query().Get("follow") == "1" {
		p.followLogs(w, r, logs, lines)
		return
	}
	all, err := tails(r.Context(), logs, lines)
	if err != nil {
		writeError(w, errs.Wrap(errs.Unavailable, err, "read the log"))
		return
	}
	for _, line := range all {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

func (p *Platform) chooseLogs(name string) ([]*servicelog.Log, error) {
	var logs []*servicelog.Log
	for _, n := range p.services.names() {
		if name == "" || n == name {
			logs = append(logs, p.services.log(n))
		}
	}
	if len(logs) == 0 && name != "" {
		return nil, errs.New(errs.NotFound, "the machine has no service %q", name)
	}
	return logs, nil
}

// tails returns the last lines of all logs together.
func tails(ctx context.Context, logs []*servicelog.Log, lines int) ([][]byte, error) {
	var all [][]byte
	for _, l := range logs {
		tail, err := l.Tail(ctx, lines)
		if err != nil {
			return nil, err
		}
		all = append(all, tail...)
	}
	return newest(all, lines), nil
}

// newest returns the last n lines of several logs, in the order of their times; all of them if n <
// 0.
func newest(all [][]byte, lines int) [][]byte {
	slices.SortStableFunc(all, func(a, b []byte) int { return bytes.Compare(timeOf(a), timeOf(b)) })
	if lines >= 0 && len(all) > lines {
		all = all[len(all)-lines:]
	}
	return all
}

func timeOf(line []byte) []byte {
	t, _, _ := bytes.Cut(line, []byte(" "))
	return t
}

// followLogs writes lines as they arrive, from one goroutine. It ends as soon as one log ends, or
// the reader is too slow for it. The reader then asks again, and so misses nothing of that service
// while the others go on.
func (p *Platform) followLogs(w http.ResponseWriter, r *http.Request,
	logs []*servicelog.Log, lines int) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	merged := make(chan []byte)
	give := func(line []byte) error {
		select {
		case merged <- line:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var closer errgroup.Group
	closer.Go(func() error {
		defer close(merged)
		return followAll(ctx, logs, lines, give)
	})
	out := http.NewResponseController(w)
	_ = out.Flush()
	for line := range merged {
		if _, err := w.Write(line); err != nil || out.Flush() != nil {
			cancel()
		}
	}
	_ = closer.Wait() // the reader has gone, or the machine
}

// followAll gives the last lines of all logs together, and then each new line, until one of the
// logs ends.
func followAll(ctx context.Context, logs []*servicelog.Log, lines int,
	give func(line []byte) error) error {
	var first [][]byte
	readers := make([]*servicelog.Reader, 0, len(logs))
	g, following := errgroup.WithContext(ctx)
	defer func() {
		for _, r := range readers {
			r.Leave()
		}
	}()
	for _, l := range logs {
		r, err := l.Join(ctx, lines)
		if err != nil {
			return err
		}
		readers, first = append(readers, r), append(first, r.First...)
	}
	for _, line := range newest(first, lines) {
		if err := give(line); err != nil {
			return err
		}
	}
	for _, r := range readers {
		g.Go(func() error {
			if err := r.Rest(following, give); err != nil {
				return err
			}
			return io.EOF
		})
	}
	readers = nil
	return g.Wait()
}
