package servicelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// follower is somebody who reads a log.
type follower struct {
	tail  int           // existing lines wanted
	start chan [][]byte // receives them, once
	lines chan []byte   // then each new line; closed when the follower is too slow
	once  bool          // no new lines wanted
}

const followBuffer = 1024 // lines that a reader may be behind

// own is the one goroutine that uses the file, so no lock is needed.
func (l *Log) own(ctx context.Context) error {
	f, size, err := l.openFile()
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	var followers []*follower
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-l.lines:
			if size+int64(len(line)) > l.cfg.Bytes {
				if f, err = l.rotate(f); err != nil {
					return err
				}
				size = 0
			}
			if _, err := f.Write(line); err != nil {
				return fmt.Errorf("write log: %w", err)
			}
			size += int64(len(line))
			followers = slices.DeleteFunc(followers,
				func(fo *follower) bool { return !fo.give(line) })
		case fo := <-l.follow:
			tail, err := l.tail(fo.tail)
			if err != nil {
				return err
			}
			fo.start <- tail
			if !fo.once {
				followers = append(followers, fo)
			}
		case fo := <-l.leave:
			followers = slices.DeleteFunc(followers, func(o *follower) bool { return o == fo })
		}
	}
}

func (fo *follower) give(line []byte) bool {
	select {
	case fo.lines <- line:
		return true
	default:
		close(fo.lines)
		return false
	}
}

func (l *Log) openFile() (*os.File, int64, error) {
	f, err := os.OpenFile(l.path(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	return f, info.Size(), nil
}

// rotate makes the present file the old one, in the place of the last old one.
func (l *Log) rotate(f *os.File) (*os.File, error) {
	f.Close()
	if err := os.Rename(l.path(), l.path()+".1"); err != nil {
		return nil, fmt.Errorf("rotate log: %w", err)
	}
	f, _, err := l.openFile()
	return f, err
}

// tail returns the last n lines of both files; all of them for a negative n.
func (l *Log) tail(n int) ([][]byte, error) {
	var all []byte
	for _, path := range []string{l.path() + ".1", l.path()} {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read log: %w", err)
		}
		all = append(all, data...)
	}
	lines := bytes.SplitAfter(all, []byte("\n"))
	if len(lines) > 0 && len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	if n >= 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines, nil
}

// Tail returns the last n lines; n < 0: all lines.
func (l *Log) Tail(ctx context.Context, n int) ([][]byte, error) {
	fo := &follower{tail: n, start: make(chan [][]byte, 1), once: true}
	return l.join(ctx, fo)
}

func (l *Log) join(ctx context.Context, fo *follower) ([][]byte, error) {
	select {
	case l.follow <- fo:
		return <-fo.start, nil
	case <-l.done:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Follow calls yield with the last n lines and then with each new one, none twice and none left
// out. It ends with ctx, with the log, or when yield returns an error. A reader that falls behind
// by more than 1024 lines gets io.ErrShortWrite.
func (l *Log) Follow(ctx context.Context, n int, yield func(line []byte) error) error {
	r, err := l.Join(ctx, n)
	if err != nil {
		return err
	}
	for _, line := range r.First {
		if err := yield(line); err != nil {
			r.Leave()
			return err
		}
	}
	return r.Rest(ctx, yield)
}

// Reader reads a log from where it joined. Its user calls Rest or Leave, once.
type Reader struct {
	First [][]byte // the last lines that there were
	l     *Log
	fo    *follower
}

// Join starts reading: lines written from now on wait for Rest.
func (l *Log) Join(ctx context.Context, n int) (*Reader, error) {
	fo := &follower{tail: n, start: make(chan [][]byte, 1), lines: make(chan []byte, followBuffer)}
	first, err := l.join(ctx, fo)
	if err != nil {
		return nil, err
	}
	return &Reader{First: first, l: l, fo: fo}, nil
}

// Leave ends the reading.
func (r *Reader) Leave() {
	select {
	case r.l.leave <- r.fo:
	case <-r.l.done:
	}
}

// Rest calls yield with each line written since Join, as Follow does.
func (r *Reader) Rest(ctx context.Context, yield func(line []byte) error) error {
	defer r.Leave()
	for {
		select {
		case line, ok := <-r.fo.lines:
			if !ok {
				return io.ErrShortWrite
			}
			if err := yield(line); err != nil {
				return err
			}
		case <-r.l.done:
			return r.last(yield)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// last gives what was still on its way when the log ended.
func (r *Reader) last(yield func(line []byte) error) error {
	for {
		select {
		case line, ok := <-r.fo.lines:
			if !ok {
				return io.ErrShortWrite
			}
			if err := yield(line); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}
