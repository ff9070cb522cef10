package servicelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string, size int64) (*Log, func()) {
	t.Helper()
	l, err := Open(Config{Dir: dir, Service: "a", Bytes: size, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return l, stop
}

// await returns the log once it ends with want.
func await(t *testing.T, l *Log, want string) string {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		lines, err := l.Tail(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		text := string(bytes.Join(lines, nil))
		if strings.HasSuffix(text, want) {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("log doesn't end with %q: %q", want, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNothingIsLostBetweenReaders writes while nobody reads, as while platformd is replaced.
func TestNothingIsLostBetweenReaders(t *testing.T) {
	dir := t.TempDir()
	l, stop := open(t, dir, 0)
	out, errOut, err := l.Stdio()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer errOut.Close()
	fmt.Fprint(out, "one\n")
	await(t, l, " a stdout one\n")
	stop()
	fmt.Fprint(out, "two\n")
	fmt.Fprint(errOut, "three\n")
	l, stop = open(t, dir, 0)
	defer stop()
	fmt.Fprint(out, "unfinished")
	text := await(t, l, " a stdout unfinished\n")
	for _, want := range []string{" a stdout one\n", " a stdout two\n", " a stderr three\n"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q in %q", want, text)
		}
	}
}

func TestRotationBoundsTheLogAndKeepsTheEnd(t *testing.T) {
	dir := t.TempDir()
	const size = 8 << 10
	l, stop := open(t, dir, size)
	defer stop()
	out, errOut, err := l.Stdio()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer errOut.Close()
	fmt.Fprintf(out, "%s\n", strings.Repeat("x", maxLine+10)) // longer than a line may be
	for i := range 2000 {
		fmt.Fprintf(out, "line %d\n", i)
	}
	text := await(t, l, " a stdout line 1999\n")
	if len(text) > 2*size {
		t.Errorf("%d bytes", len(text))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 { // two files, two pipes
		t.Errorf("%v %v", entries, err)
	}
	first := strings.Index(text, "line ")
	var from int
	if _, err := fmt.Sscanf(text[first:], "line %d", &from); err != nil {
		t.Fatal(err)
	}
	for i := from; i < 2000; i++ {
		if !strings.Contains(text, fmt.Sprintf(" line %d\n", i)) {
			t.Fatalf("line %d is missing, from %d", i, from)
		}
	}
}

func TestFollowMissesNothing(t *testing.T) {
	l, stop := open(t, t.TempDir(), 0)
	defer stop()
	out, errOut, err := l.Stdio()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer errOut.Close()
	go func() {
		for i := range 500 {
			fmt.Fprintf(out, "line %d\n", i)
		}
	}()
	next := 0
	enough := fmt.Errorf("enough")
	err = l.Follow(t.Context(), -1, func(line []byte) error {
		if want := fmt.Sprintf(" a stdout line %d\n", next); !bytes.HasSuffix(line, []byte(want)) {
			return fmt.Errorf("%q, want %q", line, want)
		}
		if next++; next == 500 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestNote: the platform's own line is told from the service's by its stream, and is one line.
func TestNote(t *testing.T) {
	l, stop := open(t, t.TempDir(), 0)
	l.Note(t.Context(), "can't be started:\nno such thing")
	if text := await(t, l, "\n"); !strings.HasSuffix(text,
		"Z a sluice can't be started: no such thing\n") || strings.Count(text, "\n") != 1 {
		t.Errorf("%q", text)
	}
	stop()
	l.Note(t.Context(), "after the end nobody takes it, and nobody waits")
}

// TestWhatIsOnItsWayIsGiven: lines that were taken before the log's end are given after it.
func TestWhatIsOnItsWayIsGiven(t *testing.T) {
	l, stop := open(t, t.TempDir(), 0)
	r, err := l.Join(t.Context(), -1)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l.Note(t.Context(), "x")
	}
	stop()
	got := 0
	if err := r.Rest(t.Context(), func([]byte) error { got++; return nil }); err != nil ||
		got != 100 {
		t.Errorf("%d lines, %v", got, err)
	}
}
