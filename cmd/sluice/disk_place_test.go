package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestDisksDontNest: no command makes a disk inside another, around one, or at a URL that is read
// as another.
func TestDisksDontNest(t *testing.T) {
	h := newDiskHost(t)
	raw := rawFile(t, 20<<20)
	app := h.url("app")
	h.must("create", app, "--size", "1MiB")
	h.must("checkpoint", app, "one")
	h.must("create", h.url("group/a"), "--size", "1MiB")
	refuse := func(code int, word, url string) {
		t.Helper()
		h.refused(code, word, "create", url, "--size", "1MiB")
		h.refused(code, word, "import", raw, url)
		h.refused(code, word, "fork", app, "one", url)
		h.refused(code, word, "bench", url, "--size", "1MiB", "--duration", "1ms")
	}
	for _, inside := range []string{"log", "seg/x", "a/b/c", "map", "disks/x"} {
		url := app + "/" + inside
		h.refused(exitConflict, "inside disk "+app, "create", url, "--size", "1MiB")
		h.refused(exitConflict, "inside disk "+app, "import", raw, url)
	}
	refuse(exitConflict, "inside disk "+app, app+"/log")
	refuse(exitConflict, "around disk "+h.url("group/a"), h.url("group"))
	refuse(exitConflict, "around disk", strings.TrimSuffix(h.url(""), "/")) // …/pool/disks
	refuse(exitUsage, "left out", h.url("x")+"#frag")
	refuse(exitUsage, "%2F", h.url("a%2Fb"))
	for _, verb := range [][]string{{"info"}, {"detach"}, {"fsck"}, {"compact"}, {"destroy",
		"--yes"}, {"checkpoint", "two"}, {"restore", "one"}, {"serve", "--listen", ":0"}} {
		h.refused(exitUsage, "left out", append([]string{verb[0], app + "#frag"}, verb[1:]...)...)
	}
	// Nothing of it was made, and what is beside is as good as ever.
	h.must("create", h.url("app-log"), "--size", "1MiB")
	h.must("create", h.url("group/b"), "--size", "1MiB")
	h.refused(exitNotFound, "app-log, app, group", "info", h.url("none"))
	h.must("fsck", app)
}

// TestDisksDontNestOnS3 has stores with a prefix, whose place is inside a disk of the bucket.
func TestDisksDontNestOnS3(t *testing.T) {
	h, _, url := s3Host(t, "")
	h.must("create", url("app"), "--size", "1MiB")
	within := strings.Replace(url("app"), "disks/app", "disks/app/sub/disks/x", 1)
	h.refused(exitConflict, "inside disk", "create", within, "--size", "1MiB")
	h.refused(exitConflict, "inside disk", "create",
		strings.Replace(url("app"), "disks/app", "disks/app/log", 1), "--size", "1MiB")
	h.must("create", strings.Replace(url("app"), "disks/app", "other/disks/x", 1), "--size", "1MiB")
}

// afterHead is a store in which somebody else makes a disk as soon as this one's head is there.
type afterHead struct {
	blob.Store
	key   string
	other func(ctx context.Context) error
}

func (s afterHead) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	tag, err := s.Store.PutIfAbsent(ctx, key, body)
	if err == nil && key == s.key {
		err = s.other(ctx)
	}
	return tag, err
}

// TestDisksMadeAtOnceDontNest: of two that are made at the same time, one around the other, at most
// one stays.
func TestDisksMadeAtOnceDontNest(t *testing.T) {
	h := newDiskHost(t)
	for range 10 {
		var g errgroup.Group
		codes := make([]int, 2)
		for i, name := range []string{"app", "app/log"} {
			g.Go(func() error {
				_, _, codes[i] = h.run("disk", "create", h.url(name), "--size", "1MiB")
				return nil
			})
		}
		_ = g.Wait() // it returns nil
		if codes[0] == 0 && codes[1] == 0 {
			t.Fatal("both were made")
		}
		for i, name := range []string{"app", "app/log"} {
			if codes[i] == 0 {
				h.must("destroy", h.url(name), "--yes")
			}
			h.refused(exitNotFound, "no disk", "info", h.url(name))
		}
	}
	// The same, with the other one made at just the wrong moment.
	ref, err := (&deps{stderr: io.Discard, env: h.getenv}).openDisk(t.Context(), h.url("app/log"))
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Store.Close()
	store := ref.Store
	ref.Store = afterHead{Store: store, key: "disks/app/log/head",
		other: func(ctx context.Context) error {
			_, err := disk.Create(ctx, store, "disks/app", disk.CreateOptions{Size: 1 << 20})
			return err
		}}
	if _, err := disk.Create(t.Context(), ref.Store, ref.Path,
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := confirmPlace(t.Context(), ref); !errs.Is(err, errs.Conflict) ||
		!strings.Contains(err.Error(), "inside disk "+h.url("app")) {
		t.Errorf("%v", err)
	}
	if _, err := disk.ReadHead(t.Context(), store, ref.Path); !errs.Is(err, errs.NotFound) {
		t.Errorf("the inner one is there: %v", err)
	}
	if !isDiskDir(filepath.Join(h.dir, "pool/disks/app")) {
		t.Error("the outer one is gone")
	}
}
