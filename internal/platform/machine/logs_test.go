package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/platform/servicelog"
)

// twoLogs returns the logs of services a and b, and where their output goes.
func twoLogs(t *testing.T) (logs []*servicelog.Log, outs []*os.File, stop func()) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var running errgroup.Group
	stop = func() {
		cancel()
		if err := running.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	for _, name := range []string{"a", "b"} {
		l, err := servicelog.Open(servicelog.Config{Dir: dir, Service: name,
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() error { return l.Run(ctx) })
		out, errOut, err := l.Stdio()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = out.Close(), errOut.Close() })
		logs, outs = append(logs, l), append(outs, out)
	}
	return logs, outs, stop
}

func awaitLines(t *testing.T, l *servicelog.Log, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		tail, err := l.Tail(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		if len(tail) == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lines, want %d", len(tail), n)
		}
	}
}

// TestFollowBeginsWithTheLastLinesOfAll: the number is of all services together, in the order of
// time, and each line that comes later is given once.
func TestFollowBeginsWithTheLastLinesOfAll(t *testing.T) {
	logs, outs, _ := twoLogs(t)
	for i := range 4 { // a b a b, in this order
		fmt.Fprintf(outs[i%2], "old %d\n", i)
		awaitLines(t, logs[i%2], i/2+1)
	}
	var got []string
	enough := errors.New("enough")
	err := followAll(t.Context(), logs, 3, func(line []byte) error {
		_, text, _ := bytes.Cut(line, []byte(" "))
		got = append(got, string(text))
		switch len(got) {
		case 3:
			fmt.Fprint(outs[0], "new\n")
		case 4:
			return enough
		}
		return nil
	})
	if want := "b stdout old 1\na stdout old 2\nb stdout old 3\na stdout new\n"; !errors.Is(err,
		enough) || strings.Join(got, "") != want {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
}

// TestFollowEndsWithOneLog: a reader isn't left with half of the machine's services.
func TestFollowEndsWithOneLog(t *testing.T) {
	logs, outs, stop := twoLogs(t)
	fmt.Fprint(outs[1], "said\n")
	awaitLines(t, logs[1], 1)
	err := followAll(t.Context(), logs, -1, func([]byte) error {
		stop()
		return nil
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("%v, want %v", err, io.EOF)
	}
	if err := followAll(t.Context(), nil, -1, nil); err != nil {
		t.Errorf("of no service: %v", err)
	}
}

// TestSlowReaderIsCutOffWhole: a reader that one log has left behind is told so, though the other
// one is quiet.
func TestSlowReaderIsCutOffWhole(t *testing.T) {
	logs, outs, _ := twoLogs(t)
	fmt.Fprint(outs[0], "first\n")
	awaitLines(t, logs[0], 1)
	const many = 3000
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := followAll(ctx, logs, -1, func(line []byte) error {
		if bytes.HasSuffix(line, []byte(" first\n")) {
			for i := range many {
				fmt.Fprintf(outs[0], "line %d\n", i)
			}
			awaitLines(t, logs[0], many+1)
		}
		return nil
	})
	if !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v, want %v", err, io.ErrShortWrite)
	}
}
