package fileblob_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
)

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkPlainFile is the peer: a new file, written and fsynced, its directory not.
func BenchmarkPlainFile(b *testing.B) {
	dir, body := b.TempDir(), make([]byte, 4096)
	var took []time.Duration
	for i := range b.N {
		start := time.Now()
		f, err := os.Create(fmt.Sprintf("%s/%d", dir, i))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Write(body); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func BenchmarkPutIfAbsent4K(b *testing.B) {
	s, body := openBench(b), make([]byte, 4096)
	var took []time.Duration
	for i := range b.N {
		start := time.Now()
		if _, err := s.PutIfAbsent(b.Context(), fmt.Sprintf("log/1/%d", i), body); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func BenchmarkPutIfMatch4K(b *testing.B) {
	s, body := openBench(b), make([]byte, 4096)
	etag, err := s.Put(b.Context(), "head", body)
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if etag, err = s.PutIfMatch(b.Context(), "head", body, etag); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func BenchmarkGetRange64K(b *testing.B) {
	s := openBench(b)
	if _, err := s.Put(b.Context(), "o", make([]byte, 4<<20)); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := s.Get(b.Context(), "o",
			blob.Range{Offset: 1 << 20, Length: 64 << 10}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

// BenchmarkPutIfAbsent4Kx16 has 16 puts in flight, so that their fsyncs can share journal commits.
func BenchmarkPutIfAbsent4Kx16(b *testing.B) {
	s, body := openBench(b), make([]byte, 4096)
	b.SetParallelism(8)
	ids := make(chan int, b.N)
	for i := range b.N {
		ids <- i
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.PutIfAbsent(b.Context(), fmt.Sprintf("log/1/%d", <-ids),
				body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}
