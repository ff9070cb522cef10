package repeats_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/x/repeats"
)

func TestRepeatsAreSaidOnceWithACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := repeats.New(slog.NewTextHandler(&out, nil), time.Minute)
		log := slog.New(h).With("vm", "a")
		other := slog.New(h).With("vm", "b")
		for i := range 300 {
			log.Warn("refused", "key", i)
			time.Sleep(time.Millisecond)
		}
		other.Warn("refused", "key", "x")
		log.Error("refused")
		log.Debug("refused") // not enabled
		log.Info("something else")
		if n := strings.Count(out.String(), "\n"); n != 4 {
			t.Fatalf("%d lines, want one of each of four kinds:\n%s", n, out.String())
		}
		out.Reset()
		time.Sleep(2 * time.Minute)
		log.Info("something else") // any line tells of what is over
		if got := out.String(); strings.Count(got, "\n") != 2 ||
			!strings.Contains(got, "vm=a key=0 repeated=299") {
			t.Fatalf("later:\n%s", got)
		}
	})
}

func TestFlushTellsWhatWasHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := repeats.New(slog.NewTextHandler(&out, nil), time.Hour)
		log := slog.New(h)
		log.Warn("a")
		log.Warn("a")
		log.Warn("a")
		out.Reset()
		if err := h.Flush(t.Context()); err != nil ||
			strings.Count(out.String(), "repeated=2") != 1 {
			t.Fatalf("%v:\n%s", err, out.String())
		}
		out.Reset()
		if err := h.Flush(t.Context()); err != nil || out.Len() != 0 {
			t.Fatalf("flushed twice: %v:\n%s", err, out.String())
		}
	})
}
