package benchmark

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
)

const (
	chunk     = 1 << 20 // of a sequential read or write
	object    = 8 << 20 // what the disk puts into one log object
	few       = 4       // requests at a time, as the disk's uploads
	many      = 16      // random reads and writes at a time
	warmBytes = 16 << 20

	putSmall, getSmall = "store: PUT 4 KiB", "store: GET 4 KiB"
	putLarge, getLarge = "store: PUT 8 MiB, 4 at a time", "store: GET 8 MiB, 4 at a time"
)

// steps are in an order in which each finds what it needs: the objects that are read were put, the
// disk that is read was written.
var steps = []step{
	{name: putSmall, do: putObjects(disk.BlockSize, 1)},
	{name: getSmall, do: getObjects(disk.BlockSize, 1)},
	{name: putLarge, do: putObjects(object, few)},
	{name: getLarge, do: getObjects(object, few)},
	{name: "disk: attach after a clean close", do: attachAgain},
	{name: "disk: write 4 KiB and flush", against: putSmall, do: writeAndFlush},
	{name: "disk: sequential write, 1 MiB, and flush", against: putLarge, byRate: true,
		do: writeInSequence},
	{name: "disk: sequential read, 1 MiB, cold", against: getLarge, byRate: true,
		do: readInSequence},
	{name: "disk: random read 4 KiB, cold", against: getSmall, do: readCold},
	{name: "disk: random read 4 KiB, warm, 16 at a time", do: readWarm},
	{name: "disk: random write 4 KiB, 16 at a time, and flush", do: writeAtRandom},
}

func (r *run) objectPrefix() string { return r.Path + "/benchmark/" }

func (r *run) objectKey(size,
	i int) string {
	return fmt.Sprintf("%s%d/%d", r.objectPrefix(), size, i)
}

// putObjects puts as many large objects as the run has bytes for, and small ones until the time is
// over.
func putObjects(size, workers int) func(context.Context, *run) (sample, error) {
	return func(ctx context.Context, r *run) (sample, error) {
		l := load{workers: workers, time: r.Duration, bytes: int64(size)}
		if size == object {
			l.ops, l.time = int(max(few, r.Size/object)), 0
		}
		body := random(size)
		s, err := l.drive(ctx, func(ctx context.Context, i int) error {
			_, err := r.Store.PutIfAbsent(ctx, r.objectKey(size, i), body)
			return err
		}, nil)
		r.puts[size] = len(s.each)
		return s, err
	}
}

// getObjects reads each of the objects that were put, once.
func getObjects(size, workers int) func(context.Context, *run) (sample, error) {
	return func(ctx context.Context, r *run) (sample, error) {
		return load{workers: workers, ops: r.puts[size], bytes: int64(size)}.drive(ctx,
			func(ctx context.Context, i int) error {
				_, err := r.Store.Get(ctx, r.objectKey(size, i), blob.All())
				return err
			}, nil)
	}
}

func attachAgain(ctx context.Context, r *run) (sample, error) {
	if err := r.attach(ctx, nil); err != nil {
		return sample{}, err
	}
	var all sample
	for range 5 {
		if err := r.disk.Close(ctx); err != nil {
			return all, err
		}
		r.disk = nil
		begun := time.Now()
		if err := r.attach(ctx, nil); err != nil {
			return all, err
		}
		all.each = append(all.each, time.Since(begun))
		all.took += time.Since(begun)
	}
	return all, nil
}

func writeAndFlush(ctx context.Context, r *run) (sample, error) {
	body := random(disk.BlockSize)
	return load{workers: 1, time: r.Duration, bytes: disk.BlockSize}.drive(ctx,
		func(ctx context.Context, _ int) error {
			if err := r.disk.WriteAt(ctx, body, r.anyBlock(2*r.Size)); err != nil {
				return err
			}
			return r.disk.Flush(ctx)
		}, nil)
}

func writeInSequence(ctx context.Context, r *run) (sample, error) {
	// Each chunk of another content, and none made while the clock runs but by a copy.
	body := random(2 * chunk)
	return load{workers: few, ops: int(r.Size / chunk), bytes: chunk}.drive(ctx,
		func(ctx context.Context, i int) error {
			from := i * 4099 % chunk
			return r.disk.WriteAt(ctx, body[from:from+chunk], int64(i)*chunk)
		}, r.disk.Flush)
}

func readInSequence(ctx context.Context, r *run) (sample, error) {
	if err := r.attach(ctx, nil); err != nil {
		return sample{}, err
	}
	buf := make([]byte, chunk)
	return load{workers: 1, ops: int(r.Size / chunk), bytes: chunk}.drive(ctx,
		func(ctx context.Context, i int) error {
			return r.disk.ReadAt(ctx, buf, int64(i)*chunk)
		}, nil)
}

func readCold(ctx context.Context, r *run) (sample, error) {
	if err := r.attach(ctx, nil); err != nil {
		return sample{}, err
	}
	buf := make([]byte, disk.BlockSize)
	// Few enough that the frames that one read brings seldom serve another.
	most := int(r.Size / (1 << 20))
	return load{workers: 1, ops: most, time: r.Duration, bytes: disk.BlockSize}.drive(ctx,
		func(ctx context.Context, _ int) error {
			return r.disk.ReadAt(ctx, buf, r.anyBlock(r.Size))
		}, nil)
}

func readWarm(ctx context.Context, r *run) (sample, error) {
	if err := r.attach(ctx, r.Cache); err != nil {
		return sample{}, err
	}
	buf := make([]byte, chunk)
	for off := int64(0); off < warmBytes; off += chunk {
		if err := r.disk.ReadAt(ctx, buf, off); err != nil {
			return sample{}, err
		}
	}
	return load{workers: many, time: r.Duration, bytes: disk.BlockSize}.drive(ctx,
		func(ctx context.Context, _ int) error {
			return r.disk.ReadAt(ctx, make([]byte, disk.BlockSize), r.anyBlock(warmBytes))
		}, nil)
}

func writeAtRandom(ctx context.Context, r *run) (sample, error) {
	body := random(chunk)
	return load{workers: many, time: r.Duration, bytes: disk.BlockSize}.drive(ctx,
		func(ctx context.Context, i int) error {
			from := i * 61 % (chunk - disk.BlockSize)
			return r.disk.WriteAt(ctx, body[from:from+disk.BlockSize], r.anyBlock(r.Size))
		}, r.disk.Flush)
}

// anyBlock returns the offset of a block below size.
func (r *run) anyBlock(size int64) int64 {
	return mathrand.Int64N(size/disk.BlockSize) * disk.BlockSize
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
