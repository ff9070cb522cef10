package pooldisks_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/control/pooldisks"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestGarbageOfAFleet collects a pool as a fleet leaves it: claimed, with an image that is replaced
// while machines are forks of it, with owners' documents, and destroyed machines.
func TestGarbageOfAFleet(t *testing.T) {
	ctx := t.Context()
	store := memblob.New()
	const url = "file:///pool"
	p := pooldisks.New(store, url, t.TempDir(), nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.Claim(ctx, "fleet-1"))
	// The audit log is nobody's garbage, whatever the fleet is called.
	audits := []string{"fleet-1", "ckpt", "log", "boot", "refs", "pins", "map", "seg"}
	for _, name := range audits {
		_, err := store.PutIfAbsent(ctx, "audit/"+name+"/chain/00000000000000000001", []byte("x"))
		must(err)
	}
	_, err := disk.Create(ctx, store, "images/a", disk.CreateOptions{Size: 1 << 20})
	must(err)
	d, err := disk.Attach(ctx, store, "images/a",
		disk.AttachOptions{Generation: 1, Holder: "build"})
	must(err)
	must(d.WriteAt(ctx, []byte("image"), 0))
	_, err = d.Checkpoint(ctx, "v1")
	must(err)
	must(d.Close(ctx))
	img := fleet.Image{Name: "a", DiskURL: url + "/images/a", Checkpoint: "v1"}
	for _, m := range []string{"m1", "m2"} {
		must(p.ForkImage(ctx, img, url+"/disks/"+m, 0, nil))
		must(p.WriteOwner(ctx, url+"/disks/"+m, []byte(`{"id":"`+m+`"}`)))
	}
	// the image is gone, machines of it are not
	must(disk.Destroy(ctx, store, "images/a", disk.DestroyOptions{}))
	must(p.Destroy(ctx, url+"/disks/m1"))
	var said bytes.Buffer
	g := pooldisks.NewGarbage(store, time.Nanosecond, slog.New(slog.NewTextHandler(&said, nil)))
	count := func(prefix string) (n int) {
		must(store.List(ctx, prefix, "", func(blob.Entry) bool { n++; return true }))
		return n
	}
	collect := func() (did string) {
		for range 3 {
			var err error
			did, err = g.Collect(ctx)
			must(err)
			time.Sleep(time.Millisecond)
		}
		return did
	}
	_, err = store.Put(ctx, "disks/m2/ckpt/junk", []byte("junk"))
	must(err)
	if did := collect(); !strings.Contains(did, "1 objects make no sense") ||
		!strings.Contains(said.String(), "sluice disk checkpoint rm disks/m2 junk") {
		t.Errorf("junk is reported as %q, and in the log as:\n%s", did, said.String())
	}
	must(store.Delete(ctx, "disks/m2/ckpt/junk"))
	if did := collect(); !strings.Contains(did, "1 disks") || count("images/a/log/") == 0 {
		t.Fatalf("%s; %d objects of the image", did, count("images/"))
	}
	m2, err := disk.Attach(ctx, store, "disks/m2", disk.AttachOptions{Generation: 1, Holder: "m2"})
	must(err)
	got := make([]byte, 5)
	must(m2.ReadAt(ctx, got, 0))
	must(m2.Close(ctx))
	if string(got) != "image" {
		t.Fatalf("the machine's disk reads %q", got)
	}
	must(p.Destroy(ctx, url+"/disks/m2"))
	_, err = disk.Create(ctx, store, "disks/other", disk.CreateOptions{Size: 1 << 20})
	must(err)
	collect()
	if n := count("images/") + count("disks/m"); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	if n := count("audit/"); n != len(audits) {
		t.Errorf("%d objects of the audit log are left of %d", n, len(audits))
	}
	must(p.Claim(ctx, "fleet-1"))
}
