package decorate_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobtest"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestConformance(t *testing.T) {
	for name, wrap := range map[string]func(blob.Store) blob.Store{
		"Retry": func(s blob.Store) blob.Store {
			return decorate.Retry(s,
				decorate.DefaultRetry())
		},
		"Metrics": func(s blob.Store) blob.Store { return decorate.Meter(s, nil) },
		"NoFaults": func(s blob.Store) blob.Store {
			return decorate.Faults(s,
				decorate.FaultConfig{})
		},
		"Latency": func(s blob.Store) blob.Store {
			return decorate.Latency(s,
				10*time.Microsecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, blobtest.Target{
				Open: func(*testing.T) blob.Store { return wrap(memblob.New()) }})
		})
	}
}

func TestRetryRidesOutRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := decorate.Faults(memblob.New(),
			decorate.FaultConfig{Seed: 7, Refused: 0.3, Lost: 0.2, Repeated: 0.2})
		s := decorate.Retry(faulty, decorate.RetryConfig{Attempts: 40, Pause: time.Second,
			MaxPause: time.Second})
		for i := range 100 {
			if _, err := s.Put(t.Context(), fmt.Sprintf("k/%03d", i),
				fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			o, err := s.Get(t.Context(), fmt.Sprintf("k/%03d", i), blob.All())
			if err != nil || string(o.Data) != fmt.Sprint(i) {
				t.Fatalf("%q %v", o.Data, err)
			}
		}
		seen := 0
		if err := s.List(t.Context(), "k/", "", func(e blob.Entry) bool {
			if want := fmt.Sprintf("k/%03d", seen); e.Key != want {
				t.Fatalf("listed %s, want %s", e.Key, want)
			}
			seen++
			return true
		}); err != nil || seen != 100 {
			t.Fatalf("listed %d: %v", seen, err)
		}
	})
}

func TestRetryGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := decorate.Meter(decorate.Faults(memblob.New(), decorate.FaultConfig{Refused: 1}), nil)
		s := decorate.Retry(m, decorate.RetryConfig{Attempts: 5, Pause: time.Second,
			MaxPause: time.Minute})
		if _, err := s.Get(t.Context(), "k", blob.All()); !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
		if n := m.Snapshot()[decorate.OpGet].Requests; n != 5 {
			t.Errorf("%d attempts", n)
		}
		if _, err := s.PutIfAbsent(t.Context(), "k", nil); !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
		if n := m.Snapshot()[decorate.OpPutIfAbsent].Requests; n != 1 {
			t.Errorf("a conditional write was sent %d times", n)
		}
	})
}

func TestLostResponseHasHappened(t *testing.T) {
	f := decorate.Faults(memblob.New(), decorate.FaultConfig{Lost: 1})
	if _, err := f.PutIfAbsent(t.Context(), "k", []byte("mine")); !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	if _, err := f.PutIfAbsent(t.Context(), "k", []byte("again")); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	f.Set(decorate.FaultConfig{})
	if o, err := f.Get(t.Context(), "k", blob.All()); err != nil || string(o.Data) != "mine" {
		t.Fatalf("%q %v", o.Data, err)
	}
}

func TestRepeatedWriteMeetsItself(t *testing.T) {
	f := decorate.Faults(memblob.New(), decorate.FaultConfig{Repeated: 1})
	if _, err := f.PutIfAbsent(t.Context(), "k", nil); !errs.Is(err, errs.Conflict) {
		t.Fatalf("a write that was sent twice: %v", err)
	}
}

func TestSameSeedSameFaults(t *testing.T) {
	run := func() (failed []int) {
		f := decorate.Faults(memblob.New(), decorate.FaultConfig{Seed: 42, Refused: 0.5})
		for i := range 64 {
			if _, err := f.Put(t.Context(), "k", nil); err != nil {
				failed = append(failed, i)
			}
		}
		return failed
	}
	if a, b := run(), run(); fmt.Sprint(a) != fmt.Sprint(b) || len(a) == 0 || len(a) == 64 {
		t.Fatalf("%v\n%v", a, b)
	}
}

func TestMetricsCount(t *testing.T) {
	var told decorate.Counts
	m := decorate.Meter(memblob.New(), func(d decorate.Done) {
		told.Requests++
		told.BytesIn += int64(d.In)
		told.BytesOut += int64(d.Out)
		if d.Err != nil {
			told.Errors++
		}
	})
	_, _ = m.Put(t.Context(), "k", make([]byte, 100))
	_, _ = m.PutIfAbsent(t.Context(), "k", make([]byte, 1000))
	_, _ = m.Get(t.Context(), "k", blob.Range{Offset: 90, Length: 100})
	got := m.Snapshot().Total()
	got.Time = 0
	if want := (decorate.Counts{Requests: 3, Errors: 1, BytesIn: 100, BytesOut: 10}); got != want ||
		told != want {
		t.Fatalf("%+v, told %+v, want %+v", got, told, want)
	}
}
