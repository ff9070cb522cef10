package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// streams are both ends of a command's standard streams; the child's ends only until it has
// started.
type streams struct {
	child   []*os.File
	outputs []*output
	stdin   *os.File // nil: none
	isTTY   bool
	once    sync.Once
}

// output is one stream that the command writes.
type output struct {
	file  *os.File
	frame byte
	isTTY bool
	// Once the command has ended: how much more is read, and until when it is waited for.
	left  int
	until time.Time
}

// openStreams makes pipes; with a terminal there is nothing to make yet.
func openStreams(o Options) (*streams, error) {
	st := &streams{}
	if o.Start.TTY {
		return st, nil
	}
	var err error
	if o.Stdin {
		err = st.pipe(func(r, w *os.File) { st.child, st.stdin = append(st.child, r), w })
	} else {
		var null *os.File
		null, err = os.Open(os.DevNull)
		st.child = append(st.child, null)
	}
	for _, frame := range []byte{guestapi.FrameStdout, guestapi.FrameStderr} {
		if err == nil {
			err = st.pipe(func(r, w *os.File) {
				st.child, st.outputs = append(st.child, w),
					append(st.outputs, &output{file: r, frame: frame})
			})
		}
	}
	if err != nil {
		st.closeChild()
		st.close()
		return nil, fmt.Errorf("make the command's streams: %w", err)
	}
	return st, nil
}

func (st *streams) pipe(take func(r, w *os.File)) error {
	r, w, err := os.Pipe()
	if err == nil {
		take(r, w)
	}
	return err
}

// useTerminal takes the terminal as the one output, and as input.
func (st *streams) useTerminal(terminal *os.File) {
	st.isTTY, st.stdin = true, terminal
	st.outputs = []*output{{file: terminal, frame: guestapi.FrameStdout, isTTY: true}}
}

func (st *streams) closeChild() {
	for _, f := range st.child {
		if f != nil {
			f.Close()
		}
	}
	st.child = nil
}

func (st *streams) close() {
	st.once.Do(func() {
		for _, o := range st.outputs {
			o.file.Close()
		}
		if st.stdin != nil {
			st.stdin.Close()
		}
	})
}

// feed writes the client's input until the queue is closed, and then ends the command's input: it
// closes the pipe, or sends a terminal the end-of-transmission character. A command that no longer
// reads is no error.
func (st *streams) feed(ctx context.Context, queue <-chan []byte) error {
	broken := st.stdin == nil
	stop := context.AfterFunc(ctx, func() {
		if st.stdin != nil {
			_ = st.stdin.SetWriteDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	for data := range queue {
		if broken {
			continue // discarded, as by a shell's pipe
		}
		if _, err := st.stdin.Write(data); err != nil {
			broken = true
		}
	}
	if broken || ctx.Err() != nil {
		return nil
	}
	if st.isTTY {
		const endOfTransmission = 4
		_, err := st.stdin.Write([]byte{endOfTransmission})
		return err
	}
	return st.stdin.Close()
}

// interrupt wakes a blocked read, which then checks whether the command has ended.
func (o *output) interrupt() { _ = o.file.SetReadDeadline(time.Unix(1, 0)) }

// afterwards reads and discards output after the end of the session, of a command that was hung up
// on or of processes in the background, which a broken pipe would kill. It returns once nobody has
// the pipes open, or ctx ends. It closes a terminal instead.
func (st *streams) afterwards(ctx context.Context, hungUp bool) {
	switch {
	case !st.isTTY:
		if st.stdin != nil {
			st.stdin.Close()
		}
	case hungUp:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, discardFor)
		defer cancel()
	default:
		return
	}
	var g errgroup.Group
	for _, o := range st.outputs {
		g.Go(func() error {
			if err := o.file.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			stop := context.AfterFunc(ctx, o.interrupt)
			defer stop()
			_, err := io.Copy(io.Discard, o.file)
			return err
		})
	}
	_ = g.Wait() // the end of it, in whatever way, is all that matters
}

// read returns output, and io.EOF at its end: when all writers have closed it, or when the command
// has ended and nothing more is there.
func (o *output) read(buf []byte, exited <-chan struct{}) (int, error) {
	select {
	case <-exited:
		return o.rest(buf)
	default:
	}
	n, err := o.file.Read(buf)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		<-exited
		return o.rest(buf)
	}
	return n, asEOF(err)
}

// rest reads the output that the command had left when it ended. In a pipe all of it is there, and
// what a child adds later is ignored. On a terminal the kernel delivers it a little later, and EIO
// ends it. If others have the terminal open there is no EIO, so time and bytes are bounded.
func (o *output) rest(buf []byte) (int, error) {
	if err := o.file.SetReadDeadline(time.Time{}); err != nil {
		return 0, asEOF(err)
	}
	raw, err := o.file.SyscallConn()
	if err != nil {
		return 0, asEOF(err)
	}
	if o.until.IsZero() {
		o.until, o.left = time.Now().Add(terminalTail), terminalRest
		if !o.isTTY {
			o.left = pending(raw)
		}
	}
	if o.left <= 0 {
		return 0, io.EOF
	}
	n, err := readNow(raw, buf[:min(len(buf), o.left)])
	o.left -= n
	if !errors.Is(err, unix.EAGAIN) {
		return n, asEOF(err)
	}
	if !o.isTTY {
		return 0, io.EOF
	}
	_ = o.file.SetReadDeadline(o.until)
	n, err = o.file.Read(buf[:min(len(buf), o.left)])
	o.left -= n
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, io.EOF
	}
	return n, asEOF(err)
}

// pending returns how many bytes a pipe holds.
func pending(raw syscall.RawConn) int {
	n := 0
	err := raw.Control(func(fd uintptr) {
		if got, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			n = got
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// readNow is read(2) of a non-blocking descriptor: EAGAIN if nothing is there, io.EOF at the end.
func readNow(raw syscall.RawConn, buf []byte) (int, error) {
	n := 0
	var readErr error
	err := raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), buf)
		return true // also when there is nothing: don't wait
	})
	if err == nil {
		err = readErr
	}
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}

// asEOF maps the ways in which a stream ends to one.
func asEOF(err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, os.ErrClosed) {
		return io.EOF
	}
	return err
}
