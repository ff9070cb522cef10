// Package servicelog keeps the output of services: one log each, on the VM's tmpfs, rotated by
// size. It never touches the machine's disk. So logging costs no flush, and a move leaves the log
// behind.
//
// Invariants: a service's output goes through named pipes, which the service itself has open at
// both ends. So nothing breaks or is lost while platformd is away, and a service that writes too
// fast is slowed down. A log never takes more than twice its size. Each line is whole.
package servicelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	defaultBytes = 1 << 20
	maxLine      = 16 << 10               // longer lines are cut in pieces
	idleFlush    = 250 * time.Millisecond // an unfinished line is logged after this
	timeFormat   = "2006-01-02T15:04:05.000000Z"
)

// Config of a log.
type Config struct {
	Dir     string
	Service string
	Bytes   int64 // of one file; there are at most two. 0: 1 MiB
	Log     *slog.Logger
}

// Log is one service's log.
type Log struct {
	cfg    Config
	lines  chan []byte
	follow chan *follower
	leave  chan *follower
	done   chan struct{} // closed when Run has ended
}

// Open makes the log's pipes if they don't exist. Nothing is read before Run.
func Open(cfg Config) (*Log, error) {
	if cfg.Bytes == 0 {
		cfg.Bytes = defaultBytes
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	l := &Log{cfg: cfg, lines: make(chan []byte), follow: make(chan *follower),
		leave: make(chan *follower), done: make(chan struct{})}
	for _, stream := range []string{"stdout", "stderr"} {
		err := unix.Mkfifo(l.pipe(stream), 0o600)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make log pipe: %w", err)
		}
		// The service, under whatever id, may open its own standard output by name again.
		if err := os.Chmod(l.pipe(stream),
			0o666); err != nil { //nolint:gosec // the directory is closed to all others
			return nil, fmt.Errorf("make log pipe: %w", err)
		}
	}
	return l, nil
}

func (l *Log) pipe(stream string) string {
	return filepath.Join(l.cfg.Dir, l.cfg.Service+"."+stream)
}

func (l *Log) path() string { return filepath.Join(l.cfg.Dir, l.cfg.Service+".log") }

// Stdio returns the pipes for the service's standard output and error. The caller closes them once
// the service has them.
func (l *Log) Stdio() (stdout, stderr *os.File, err error) {
	if stdout, err = openPipe(l.pipe("stdout")); err != nil {
		return nil, nil, err
	}
	if stderr, err = openPipe(l.pipe("stderr")); err != nil {
		stdout.Close()
		return nil, nil, err
	}
	return stdout, stderr, nil
}

// openPipe opens for reading and writing: there is always a reader, and a writer.
func openPipe(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open log pipe: %w", err)
	}
	return f, nil
}

// Run reads the pipes and writes the log until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	defer close(l.done)
	g, ctx := errgroup.WithContext(ctx)
	for _, stream := range []string{"stdout", "stderr"} {
		g.Go(func() error { return l.read(ctx, stream) })
	}
	g.Go(func() error { return l.own(ctx) })
	return g.Wait()
}

// read cuts one stream into lines.
func (l *Log) read(ctx context.Context, stream string) error {
	f, err := os.OpenFile(l.pipe(stream), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open log pipe: %w", err)
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	c := &cutter{emit: func(text []byte) bool { return l.emit(ctx, stream, text) }}
	buf := make([]byte, 32<<10)
	for {
		deadline := time.Time{}
		if c.pending() {
			deadline = time.Now().Add(idleFlush)
		}
		if err := f.SetReadDeadline(deadline); err != nil {
			return ended(ctx, err)
		}
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.flush()
		case err != nil:
			return ended(ctx, err)
		case !c.write(buf[:n]):
			return nil
		}
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("read service output: %w", err)
}

// Note logs a line of the platform's own, as stream "sluice". It waits until Run takes it.
func (l *Log) Note(ctx context.Context, text string) {
	l.emit(ctx, "sluice", []byte(strings.Join(strings.Fields(text), " ")))
}

func (l *Log) emit(ctx context.Context, stream string, text []byte) bool {
	line := make([]byte, 0, len(text)+64)
	line = time.Now().UTC().AppendFormat(line, timeFormat)
	line = append(line, ' ')
	line = append(line, l.cfg.Service...)
	line = append(line, ' ')
	line = append(line, stream...)
	line = append(line, ' ')
	line = append(append(line, text...), '\n')
	select {
	case l.lines <- line:
		return true
	case <-l.done:
		return false
	case <-ctx.Done():
		return false
	}
}

// cutter cuts a byte stream into lines.
type cutter struct {
	part []byte
	emit func(line []byte) bool // false ends it
}

func (c *cutter) pending() bool { return len(c.part) > 0 }

func (c *cutter) flush() bool {
	ok := c.emit(c.part)
	c.part = c.part[:0]
	return ok
}

func (c *cutter) write(p []byte) bool {
	for _, b := range p {
		if b != '\n' {
			c.part = append(c.part, b)
			if len(c.part) < maxLine {
				continue
			}
		}
		if !c.flush() {
			return false
		}
	}
	return true
}
