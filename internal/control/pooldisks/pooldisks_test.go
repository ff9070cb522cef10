package pooldisks_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/control/pooldisks"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestEveryCallCanBeRepeated(t *testing.T) {
	ctx := t.Context()
	store := memblob.New()
	pool := pooldisks.New(store, "s3://bucket/pool?endpoint=x", t.TempDir(), nil)
	image, err := pool.Build(ctx, "base", 32<<20, bytes.NewReader(archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := pool.Build(ctx, "other", 32<<20, bytes.NewReader(archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	const url = "s3://bucket/pool/disks/01aaaaaaaaaaaa?endpoint=x"
	for range 2 {
		if err := pool.ForkImage(ctx, image, url, 64<<20, nil); err != nil {
			t.Fatal(err)
		}
		if err := pool.WriteOwner(ctx, url, []byte(`{"a":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := pool.WriteOwner(ctx, url, []byte(`{"a":2}`)); err != nil {
			t.Fatal(err)
		}
	}
	doc, _, err := disk.ReadOwnerDoc(ctx, store, "disks/01aaaaaaaaaaaa")
	if err != nil || string(doc) != `{"a":2}` {
		t.Fatalf("machine.json is %q, %v", doc, err)
	}
	info, err := disk.Info(ctx, store, "disks/01aaaaaaaaaaaa")
	if err != nil || info.Head.Size != 64<<20 {
		t.Fatalf("forked as %+v, %v", info, err)
	}
	if err := pool.ForkImage(ctx, other, url, 64<<20, nil); !errs.Is(err, errs.Exists) {
		t.Fatalf("another image's disk was taken for a fork of this one: %v", err)
	}
	for range 2 {
		if err := pool.Destroy(ctx, url); err != nil {
			t.Fatal(err)
		}
	}
	left := 0
	if err := store.List(ctx, "disks/01aaaaaaaaaaaa/", "",
		func(blob.Entry) bool { left++; return true }); err != nil || left != 0 {
		t.Fatalf("%d objects left, %v", left, err)
	}
}

func TestForeignURLsAreRefused(t *testing.T) {
	pool := pooldisks.New(memblob.New(), "s3://bucket/pool", "", nil)
	for _, url := range []string{"s3://bucket/poolside/disks/x", "s3://bucket/pool/",
		"file:///pool/disks/x"} {
		if err := pool.Destroy(t.Context(), url); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", url, err)
		}
		if err := pool.ForkImage(t.Context(), fleet.Image{DiskURL: url}, url, 0, nil); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func archive(t *testing.T) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "etc/", Mode: 0o755,
		Typeflag: tar.TypeDir}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(&tar.Header{Name: "etc/hello", Mode: 0o644, Size: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestAPoolIsOneFleets(t *testing.T) {
	store := memblob.New()
	mine := pooldisks.New(store, "mem://pool", "", nil)
	for range 2 { // a restarted server claims it again
		if err := mine.Claim(t.Context(), "prod"); err != nil {
			t.Fatal(err)
		}
	}
	err := pooldisks.New(store, "mem://pool", "", nil).Claim(t.Context(), "staging")
	if !errs.Is(err, errs.Conflict) || !strings.Contains(errs.RemedyOf(err), "prod") {
		t.Fatalf("another fleet's claim: %v", err)
	}
}
