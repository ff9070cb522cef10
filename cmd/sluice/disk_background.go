package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// backgroundLog is the variable that names the log of a process in the background to itself.
	backgroundLog = "SLUICE_BACKGROUND_LOG"
	// backgroundErrors is the variable that has one tell its errors as text, although its result is
	// JSON: the command that has started it passes them on to whoever asked for no JSON.
	backgroundErrors = "SLUICE_BACKGROUND_ERRORS"
	// maxBackgroundLog is the size beyond which a log is emptied.
	maxBackgroundLog = 1 << 20
	logLimitLook     = 5 * time.Second
	logLook          = 200 * time.Millisecond
)

// backgroundHelp is the flag's text; where the log is kept is what users ask.
const backgroundHelp = "return when it is ready, and end by: sluice disk detach. It logs to $SLUICE_RUN_DIR/disks, at most 1 MiB, which goes when " +
	"it ends in order; of others the newest 10 are kept"

// inBackground runs this program once more, in a session of its own, and returns when that has said
// that it is ready, or has ended, which it tells with the same error and exit code. What it says
// until then is said here too, and an interrupt ends it.
func (d *deps) inBackground(ctx context.Context, url string, args []string) error {
	canonical, err := host.CanonicalURL(url)
	if err != nil {
		return err
	}
	logged, err := d.registry().NewLog(canonical)
	if err != nil {
		return err
	}
	defer logged.Close()
	r, err := d.startBehind(ctx, args, logged)
	if err != nil {
		return errors.Join(err, os.Remove(logged.Name()))
	}
	return d.result(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s, logging to %s\n", r.URL, host.Describe(r),
			logged.Name())
		return err
	})
}

// startBehind returns the record of the process that it has started, once that is ready.
func (d *deps) startBehind(ctx context.Context, args []string,
	logged *os.File) (*attachment.Record, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "find this program")
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, append(args, "--json")...)
	cmd.Env = append(os.Environ(), "SLUICE_RUN_DIR="+d.env("SLUICE_RUN_DIR"),
		backgroundLog+"="+logged.Name())
	if !d.json {
		cmd.Env = append(cmd.Env, backgroundErrors+"=text")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = logged
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a pipe")
	}
	if err := cmd.Start(); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "start a process in the background")
	}
	var r attachment.Record
	answered := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return d.relay(ctx, cmd.Process, logged.Name(), answered) })
	derr := json.NewDecoder(out).Decode(&r)
	if derr == nil {
		close(answered)
		return &r, errors.Join(g.Wait(), cmd.Process.Release())
	}
	werr := cmd.Wait()
	close(answered)
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(werr, &exit) && exit.ExitCode() > 0 {
		return nil, &codedError{code: exit.ExitCode()}
	}
	return nil, errs.New(errs.Internal, "the process in the background has ended: %v", werr)
}

// relay says what a process writes to its log until it has answered. When ctx ends before, it
// interrupts the process.
func (d *deps) relay(ctx context.Context, p *os.Process, file string,
	answered <-chan struct{}) error {
	f, err := os.Open(file)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the log")
	}
	defer f.Close()
	tick := time.NewTicker(logLook)
	defer tick.Stop()
	interrupted := ctx.Done()
	for over := false; ; {
		if _, err := io.Copy(d.stderr, f); err != nil || over {
			return err
		}
		select {
		case <-answered:
			over = true
		case <-interrupted:
			interrupted = nil
			if err := p.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return errs.Wrap(errs.Internal, err, "interrupt the process in the background")
			}
		case <-tick.C:
		}
	}
}

// behind does what an attachment is for. In the background it keeps its log small meanwhile, and
// removes that when it has ended in order.
func (d *deps) behind(ctx context.Context, attach func(context.Context) error) error {
	name := d.env(backgroundLog)
	if name == "" {
		return attach(ctx)
	}
	over, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return limitLog(over, name, maxBackgroundLog, logLimitLook) })
	err := attach(ctx)
	cancel()
	if err = errors.Join(err, g.Wait()); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errs.Wrap(errs.Denied, err, "remove the log")
	}
	return nil
}

// limitLog empties a log whenever it is larger than most, until ctx ends. One that is gone is fine.
func limitLog(ctx context.Context, name string, most int64, look time.Duration) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		info, err := os.Stat(name)
		if err == nil && info.Size() > most {
			err = os.Truncate(name, 0)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return errs.Wrap(errs.Unavailable, err, "keep the log small")
		}
	}
}
