package vminit

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/watchdog"
	"github.com/sluice-platform/sluice/internal/x/backoff"
)

const (
	// askTimeout is how long one question to platformd waits. An answer counts however late it is.
	askTimeout = 20 * time.Second
	askFirst   = 20 * time.Millisecond // between questions until the first answer
	// dialTimeout is for the kernel alone, which connects whatever platformd does. Before the link
	// has its address a dial waits for a neighbour that there isn't, for seconds.
	dialTimeout = 500 * time.Millisecond
	// comesUp is how long a platformd that has never answered isn't judged: its worker removes a VM
	// that doesn't come up.
	comesUp = 3 * time.Minute
	// mostKills is after how many kills in a row, without an answer in between, the VM ends: more
	// restarts of platformd wouldn't help.
	mostKills = 3
)

// watchPlatformd kills a stuck platformd, so that it is restarted, until ctx ends. Its error ends
// the VM.
func (in *Init) watchPlatformd(ctx context.Context, boot guestapi.Boot) error {
	var answers atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		askPlatformd(ctx, boot.ControlToken, &answers)
		return nil
	})
	g.Go(func() error { return in.judgePlatformd(ctx, &answers) })
	return g.Wait()
}

// judgePlatformd judges each platformd of the VM, one after the other.
func (in *Init) judgePlatformd(ctx context.Context, answers *atomic.Int64) error {
	var (
		watched *child
		judge   watchdog.Judge
		threads *watchdog.Threads
		known   int64
		kills   int
	)
	began := time.Now()
	tick := time.NewTicker(watchdog.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		in.killed.Look()
		now, c := answers.Load(), in.platformd.Load()
		if c != watched {
			watched, judge, threads = c, watchdog.Judge{}, watchdog.NewThreads(c.pid)
		}
		if now == 0 && time.Since(began) < comesUp {
			continue
		}
		s := watchdog.Sample{At: time.Now(), Answered: now != known}
		if known = now; s.Answered {
			kills = 0
		} else if seen,
			err := threads.Observe(); err == nil { // else it has ended, and is started again anyway
			s.Stuck, s.Starved = seen.Stuck, seen.Starved
		}
		why := judge.Add(s)
		if why == "" {
			continue
		}
		if kills++; kills > mostKills {
			return fmt.Errorf("platformd was killed %d times and is as silent as before: %s",
				mostKills, why)
		}
		in.killStuck(ctx, c, why)
		judge = watchdog.Judge{}
	}
}

// killStuck kills a platformd; supervise starts the next one. The machine runs on meanwhile.
func (in *Init) killStuck(ctx context.Context, c *child, why string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.children[c.pid] != c {
		return // it has ended just now
	}
	in.cfg.Log.ErrorContext(ctx, "platformd is stuck, and is killed", "why", why)
	c.stuck = why
	if err := unix.Kill(c.pid, unix.SIGKILL); err != nil {
		in.cfg.Log.ErrorContext(ctx, "platformd is not killed", "error", err)
	}
}

// askPlatformd counts platformd's answers, one question after the other, until ctx ends. It asks
// where the worker does.
func askPlatformd(ctx context.Context, token string, answers *atomic.Int64) {
	address := net.JoinHostPort(guestapi.GuestLinkIP+"%"+guestapi.LinkName,
		strconv.Itoa(guestapi.ControlPort))
	transport := &http.Transport{DialContext: func(ctx context.Context, _,
		_ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "tcp6", address)
	}}
	defer transport.CloseIdleConnections()
	for ctx.Err() == nil {
		if askOnce(ctx, transport, token) == nil {
			answers.Add(1)
		}
		wait := watchdog.Interval
		if answers.Load() == 0 {
			wait = askFirst
		}
		if backoff.Sleep(ctx, wait) != nil {
			return
		}
	}
}

// askOnce waits for an answer; a refusal counts as one.
func askOnce(ctx context.Context, transport *http.Transport, token string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://platformd"+guestapi.PathAlive, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
