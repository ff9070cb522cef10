//go:build bench

package device

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/bench/serving"
)

// TestLogStore measures a flush of a disk whose log is in a second, nearer store, beside one
// without, over the same store far away. Then that store stalls, and the flushes go on.
func TestLogStore(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	far, near := s3proxy.Start(t, s3.Endpoint), s3proxy.Start(t, s3.Endpoint)
	one := openDevice(t, startServer(t, diskURL(far, s3, "one")))
	two := openDevice(t, &server{serving.Start(t, diskURL(far, s3, "two"), t.TempDir(),
		logEnv+"=s3://"+s3.Bucket+"/logs"+query(near))})
	far.SetLatency(20 * time.Millisecond)
	near.SetLatency(time.Millisecond)
	defer far.SetLatency(0)
	const n, part = 200, 10
	var alone, beside []time.Duration
	for i := range n / part { // in turn: both see the same weather
		at := func(k int) int64 { return int64(i*part+k) * 4096 }
		alone = append(alone, writeAndSync(t, one, part, at)...)
		beside = append(beside, writeAndSync(t, two, part, at)...)
	}
	result(
		"flush of 4 KiB at the block device, store 20 ms away: p50 %.2f ms, p99 %.2f ms; with the log in a store 1 ms away p50 %.2f ms, p99 %.2f ms; %.2f ×",
		ms(p50(alone)), ms(p99(alone)), ms(p50(beside)), ms(p99(beside)),
		ms(p50(beside))/ms(p50(alone)))

	const stall = 8 * time.Second
	far.SetLatency(time.Minute) // nothing that is asked now is answered before the end
	var during []time.Duration
	for start, i := time.Now(), n; time.Since(start) < stall; i++ {
		during = append(during, writeAndSync(t, two,
			1, func(int) int64 { return int64(i) * 4096 })...)
	}
	result(
		"flush of 4 KiB with the log in a store 1 ms away, while the disk's own store answers nothing for %v: %d flushes, p50 %.2f ms, p99 %.2f ms",
		stall, len(during), ms(p50(during)), ms(p99(during)))
}

func openDevice(t *testing.T, s *server) *os.File {
	t.Helper()
	f, err := os.OpenFile(s.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
