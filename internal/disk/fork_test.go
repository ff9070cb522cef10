package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestForksAreIsolated(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	store := s.client()
	rng := rand.New(rand.NewPCG(1, 1))
	base := make([]byte, 3<<20)
	create(t, store, path, int64(len(base)))
	d := attach(t, store, path, 1, small)
	churn(t, ctx, rng, d, base, 40)
	if _, err := d.Checkpoint(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	v1 := append([]byte(nil), base...)
	if _, err := d.Checkpoint(ctx, "v1"); !errs.Is(err, errs.Exists) {
		t.Fatalf("a name twice: %v", err)
	}
	churn(t, ctx, rng, d, base, 40) // the parent goes on

	images := map[string][]byte{}
	for i := range 3 {
		child := fmt.Sprint("forks/c", i)
		forker := s.client()
		if _, err := disk.Fork(ctx, forker, path, "v1", child, disk.ForkOptions{}); err != nil {
			t.Fatal(err)
		}
		// checkpoint; reference; head; checkpoint, a listing of the reference and a look at the
		// head
		if n := forker.requests(); n > 6 {
			t.Errorf("a fork took %d requests", n)
		}
		images[child] = append([]byte(nil), v1...)
	}
	for child, img := range images { // each child goes its way, through a crash
		c := attach(t, store, child, 1, small)
		checkAll(t, ctx, c, img)
		churn(t, ctx, rng, c, img, 25)
		if err := c.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		c.Abandon()
	}
	// A fork of a fork of a fork, each changed.
	from, img := "forks/c0", images["forks/c0"]
	for i := range 3 {
		c := attach(t, store, from, 2, small)
		churn(t, ctx, rng, c, img, 20)
		mustClose(t, c)
		if _, err := disk.CheckpointClosed(ctx, store, from, "here"); err != nil {
			t.Fatal(err)
		}
		child := fmt.Sprint("deep/", i)
		if _, err := disk.Fork(ctx, store, from, "here", child,
			disk.ForkOptions{ID: "deep", Generation: 1}); err != nil {
			t.Fatal(err)
		}
		images[from] = append([]byte(nil), img...)
		from = child
	}
	images[from] = img
	for child, img := range images {
		c := attach(t, store, child, 9, small)
		checkAll(t, ctx, c, img)
		mustClose(t, c)
	}
	checkAll(t, ctx, d, base)
	r, err := disk.OpenReadOnly(ctx, store, path, "v1", disk.ReadOnlyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	checkAll(t, ctx, r, v1)
	wantKind(t, "write to a read-only disk", r.WriteAt(ctx, v1[:4096], 0), errs.Denied)
	checkForkRecords(t, ctx, store)
}

func checkForkRecords(t *testing.T, ctx context.Context, store *simClient) {
	t.Helper()
	info, err := disk.Info(ctx, store, path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(info.Forks, " "); got != "forks/c0 forks/c1 forks/c2" {
		t.Errorf("forks %q", got)
	}
	if len(info.Checkpoints) != 1 || info.LogObjects == 0 || info.MapObjects == 0 ||
		info.Bytes == 0 || info.MappedBytes == 0 {
		t.Errorf("%+v", info)
	}
	deep, err := disk.Info(ctx, store, "deep/2")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(deep.Head.Lineage); n != 5 || deep.Head.Lineage[4].Path != path ||
		deep.Head.Parent.Path != "deep/1" {
		t.Errorf("lineage %+v", deep.Head.Lineage)
	}
	list, err := disk.ListCheckpoints(ctx, store, path)
	if err != nil || len(list) != 1 || list[0].Name != "v1" {
		t.Errorf("%v %v", list, err)
	}
}

func TestForkRefusals(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<20)
	fork := func(from, ckpt, to string, o disk.ForkOptions) error {
		_, err := disk.Fork(ctx, store, from, ckpt, to, o)
		return err
	}
	wantKind(t, "no such disk", fork("disks/none", "x", "f", disk.ForkOptions{}), errs.NotFound)
	err := fork(path, "x", "f", disk.ForkOptions{})
	wantKind(t, "no checkpoints", err, errs.NotFound)
	// of a disk never written
	if _, err := disk.CheckpointClosed(ctx, store, path, "one"); err != nil {
		t.Fatal(err)
	}
	err = fork(path, "x", "f", disk.ForkOptions{})
	wantKind(t, "no such checkpoint", err, errs.NotFound)
	if !strings.Contains(errs.RemedyOf(err), "one") {
		t.Errorf("the remedy doesn't list what is there: %q", errs.RemedyOf(err))
	}
	wantKind(t, "onto a disk", fork(path, "one", path, disk.ForkOptions{}), errs.Exists)
	wantKind(t, "smaller", fork(path, "one", "f", disk.ForkOptions{Size: 4096}), errs.Invalid)
	wantKind(t, "bad name", fork(path, "../one", "f", disk.ForkOptions{}), errs.Invalid)
	if err := fork(path, "one", "f", disk.ForkOptions{Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "twice", fork(path, "one", "f", disk.ForkOptions{}), errs.Exists)
	d := attach(t, store, "f", 1)
	if d.Size() != 2<<20 {
		t.Errorf("size %d", d.Size())
	}
	checkAll(t, ctx, d, make([]byte, 2<<20))
	_, err = disk.CheckpointClosed(ctx, store, "f", "open")
	wantKind(t, "checkpoint of an open disk", err, errs.Conflict)
}

// TestForkAtEveryLostAnswer repeats a fork whose answers get lost until it says that it is done.
func TestForkAtEveryLostAnswer(t *testing.T) {
	ctx := testCtx(t)
	for lost := 1; lost <= 4; lost++ {
		s := newSim()
		create(t, s.client(), path, 1<<20)
		if _, err := disk.CheckpointClosed(ctx, s.client(), path, "c"); err != nil {
			t.Fatal(err)
		}
		c := s.client()
		c.judge = func(n int, _, _ string) verdict {
			if n == lost {
				return loseReply
			}
			return pass
		}
		if _, err := disk.Fork(ctx, c, path, "c", "child", disk.ForkOptions{}); err != nil {
			t.Errorf("answer %d lost: %v", lost, err)
		}
	}
}

func TestOwnerDocument(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<20)
	_, _, err := disk.ReadOwnerDoc(ctx, store, path)
	wantKind(t, "none yet", err, errs.NotFound)
	tag, err := disk.WriteOwnerDoc(ctx, store, path, []byte("1"), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = disk.WriteOwnerDoc(ctx, store, path, []byte("2"), "")
	wantKind(t, "create twice", err, errs.Conflict)
	if _, err = disk.WriteOwnerDoc(ctx, store, path, []byte("2"), tag); err != nil {
		t.Fatal(err)
	}
	_, err = disk.WriteOwnerDoc(ctx, store, path, []byte("3"), tag)
	wantKind(t, "stale", err, errs.Conflict)
	if b, _, err := disk.ReadOwnerDoc(ctx, store, path); string(b) != "2" || err != nil {
		t.Fatal(string(b), err)
	}
}
