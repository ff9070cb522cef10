package disk_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// mappedOf asks a device for all its extents and returns which blocks hold content.
func mappedOf(t *testing.T, ctx context.Context, d interface {
	disk.Device
	disk.Extents
}) []bool {
	t.Helper()
	out := make([]bool, d.Size()/disk.BlockSize)
	for off := int64(0); off < d.Size(); {
		end, data, err := d.NextExtent(ctx, off, d.Size())
		if err != nil {
			t.Fatal(err)
		}
		if end <= off || end > d.Size() || end%disk.BlockSize != 0 {
			t.Fatalf("extent from %d to %d", off, end)
		}
		for b := off / disk.BlockSize; b < end/disk.BlockSize; b++ {
			out[b] = data
		}
		off = end
	}
	return out
}

func sameMapped(t *testing.T, got, want []bool) {
	t.Helper()
	for b := range want {
		if got[b] != want[b] {
			t.Fatalf("block %d: holds content %v, want %v", b, got[b], want[b])
		}
	}
}

// TestExtentsAreExact changes a disk at random and compares, at every stage between memory and the
// stored map, what it says it holds with what was written and trimmed.
func TestExtentsAreExact(t *testing.T) {
	ctx := testCtx(t)
	const size = 24 << 20
	s := newSim()
	create(t, s.client(), path, size)
	rng := rand.New(rand.NewPCG(7, 7))
	want := make([]bool, size/disk.BlockSize)
	d := attach(t, s.client(), path, 1, small,
		func(o *disk.AttachOptions) { o.SealInterval = time.Hour })
	for step := range 400 {
		first := rng.IntN(len(want))
		n := 1 + rng.IntN(min(len(want)-first, 200))
		var err error
		switch rng.IntN(5) {
		case 0, 1:
			// zeros are content
			err = d.WriteAt(ctx, make([]byte, n*disk.BlockSize), int64(first)*disk.BlockSize)
			setAll(want[first:first+n], true)
		case 2:
			err = d.Trim(ctx, int64(first)*disk.BlockSize, int64(n)*disk.BlockSize)
			setAll(want[first:first+n], false)
		case 3:
			err = d.WriteAt(ctx, []byte{1}, int64(first)*disk.BlockSize+17)
			want[first] = true
		default:
			err = d.Flush(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		if step%20 == 0 {
			sameMapped(t, mappedOf(t, ctx, d), want)
		}
	}
	mustClose(t, d)
	ro, err := disk.OpenReadOnly(ctx, s.client(), path, "", disk.ReadOnlyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	sameMapped(t, mappedOf(t, ctx, ro), want)
	for _, bad := range [][2]int64{{-1, 5}, {5, 5}, {0, size + 1}} {
		if _, _, err := ro.NextExtent(ctx, bad[0], bad[1]); !errs.Is(err, errs.Invalid) {
			t.Errorf("extent of %v: %v", bad, err)
		}
	}
}

func setAll(p []bool, v bool) {
	for i := range p {
		p[i] = v
	}
}

// TestExtentsOfAHugeDisk goes over 16 TiB with two blocks in it, in few steps.
func TestExtentsOfAHugeDisk(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, disk.MaxSize)
	d := attach(t, s.client(), path, 1)
	for _, off := range []int64{1 << 40, disk.MaxSize - disk.BlockSize} {
		if err := d.WriteAt(ctx, make([]byte, disk.BlockSize), off); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	d = attach(t, s.client(), path, 2)
	data, steps := int64(0), 0
	for off := int64(0); off < d.Size(); steps++ {
		end, has, err := d.NextExtent(ctx, off, d.Size())
		if err != nil {
			t.Fatal(err)
		}
		if has {
			data += end - off
		}
		off = end
	}
	if data != 2*disk.BlockSize || steps > 2000 {
		t.Errorf("%d bytes of content found in %d steps", data, steps)
	}
	mustClose(t, d)
}
