package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/gc"
)

func TestDiskCollect(t *testing.T) {
	h := newDiskHost(t)
	ctx := t.Context()
	pool := "file://" + h.dir + "/pool"
	url := h.url("a")
	h.must("create", url, "--size", "64MiB")
	store, err := fileblob.Open(h.dir + "/pool")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rewrite := func(gen uint64) {
		t.Helper()
		d, err := disk.Attach(ctx, store, "disks/a",
			disk.AttachOptions{Generation: gen, Holder: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(ctx, bytes.Repeat([]byte{byte(gen)}, 1<<20), 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for gen := range uint64(4) {
		rewrite(gen + 1)
		if gen == 1 {
			h.must("checkpoint", url, "two")
			h.must("pin", url, "mine", "--checkpoint", "two")
		}
	}
	h.refused(exitConflict, "another name", "pin", url, "mine")
	h.refused(exitUsage, "reserved", "pin", url, "lease-1")
	if x := h.info(url); len(x.Pins) != 1 || x.Pins[0].Name != "mine" ||
		x.Pins[0].Checkpoint != "two" || x.Pins[0].Lease != 0 {
		t.Errorf("%+v", x.Pins)
	}
	if out := h.must("info", url); !strings.Contains(out, "until unpinned") {
		t.Errorf("%s", out)
	}
	h.must("checkpoint", "rm", url, "two")
	h.refused(exitNotFound, "two", "checkpoint", "rm", url, "two")
	h.refused(exitUsage, "grace", "collect", pool, "--grace", "1s")
	h.refused(exitUsage, "--yes", "collect", pool, "--dry-run", "--yes")
	h.refused(exitFailed, "name the pool", "collect", pool+"/disks")
	h.refused(exitNotFound, "name the pool", "collect", "file://"+h.mkdir("empty"))

	collect := func(args ...string) (c struct{ gc.Report }) {
		t.Helper()
		out := h.must(append([]string{"collect", pool, "--grace", "10m", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &c); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return c
	}
	if c := collect(); !c.DryRun || c.Waiting.Total().Objects == 0 || c.Pins != 1 {
		t.Errorf("%+v", c)
	}
	// An hour ago, by the clock of the one who marked.
	if _, err := gc.Collect(ctx, store,
		gc.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	dry := collect()
	if c := collect("--yes"); c.DryRun || c.Freed.Total().Objects == 0 ||
		c.Freed.Total() != dry.Freed.Total() || c.Marked == nil {
		t.Errorf("freed %+v; a dry run would have %+v", c, dry.Freed)
	}
	if out := h.must("collect", pool); !strings.Contains(out, "Nothing was changed") ||
		!strings.Contains(out, "To free") {
		t.Errorf("%s", out)
	}
	h.must("fsck", url, "--data")
	path := strings.TrimPrefix(url, pool+"/")
	if _, err := store.Put(ctx, path+"/ckpt/junk", []byte(`{"version":99}`)); err != nil {
		t.Fatal(err)
	}
	if out := h.must("collect", pool); !strings.Contains(out, "doubtful: "+path+"/ckpt/junk") ||
		!strings.Contains(out, "nothing of "+path) {
		t.Errorf("%s", out)
	}
	if c := collect(); c.Doubts != 1 ||
		!strings.Contains(c.Doubtful[0].Remedy, "rm "+url+" junk") {
		t.Errorf("%+v", c)
	}
	h.must("checkpoint", "rm", url, "junk")
	h.must("unpin", url, "mine")
	h.refused(exitNotFound, "none", "unpin", url, "mine")
	if c := collect(); c.Waiting.Total().Objects == 0 {
		t.Errorf("nothing was freed by removing the pin: %+v", c)
	}
}
