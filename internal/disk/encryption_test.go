package disk_test

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func testKey(t *testing.T, seed byte) disk.KEK {
	t.Helper()
	k, err := kek.New([32]byte{seed, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func withKey(
	k disk.KEK) func(*disk.AttachOptions) {
	return func(o *disk.AttachOptions) { o.Key = k }
}

func createSealed(t *testing.T, s *simClient, p string, size int64, k disk.KEK) {
	t.Helper()
	if _, err := disk.Create(testCtx(t), s, p, disk.CreateOptions{Size: size, Key: k}); err != nil {
		t.Fatal(err)
	}
}

// marker is what is looked for in everything stored. It is put into noise, so that frames are
// stored raw.
var marker = []byte("the marker that nobody may see")

func mark(p []byte, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	for off := 100; off+len(marker) < len(p); off += 4096 {
		copy(p[off:], marker)
	}
}

func (s *sim) holding(what []byte) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for k, o := range s.objs {
		if bytes.Contains(o.body, what) {
			keys = append(keys, k)
		}
	}
	return keys
}

func TestNothingInTheClearIsStored(t *testing.T) {
	for _, sealed := range []bool{true, false} { // without encryption the search must find it
		ctx := testCtx(t)
		s := newSim()
		store := s.client()
		var key disk.KEK
		if sealed {
			key = testKey(t, 1)
		}
		createSealed(t, store, path, 4<<20, key)
		file := filepath.Join(t.TempDir(), "cache")
		dev, err := cache.Open(file, 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dev.Close() })
		withCache := func(o *disk.AttachOptions) { o.Cache = dev }
		d := attach(t, store, path, 1, small, withKey(key), withCache)
		want := make([]byte, 4<<20)
		mark(want[:3<<20], 1)
		if err := d.WriteAt(ctx, want[:3<<20], 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Checkpoint(ctx, "c"); err != nil {
			t.Fatal(err)
		}
		checkAll(t, ctx, d, want)
		mustClose(t, d)
		// through the cache, and into it
		d = attach(t, store, path, 2, small, withKey(key), withCache)
		checkAll(t, ctx, d, want)
		var part [512]byte
		if err := d.ReadAt(ctx, part[:], 70_000); err != nil ||
			!bytes.Equal(part[:], want[70_000:70_512]) {
			t.Errorf("a part of a cached block: %v", err)
		}
		if dev.Stats().Hits == 0 {
			t.Error("nothing was read from the cache")
		}
		mustClose(t, d)
		onDevice, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := s.holding(marker); (len(found) > 0) == sealed {
			t.Errorf("sealed %v: the marker is in %q", sealed, found)
		}
		if bytes.Contains(onDevice, marker) == sealed {
			t.Errorf("sealed %v: the marker is on the cache device: %v", sealed, !sealed)
		}
	}
}

func TestWrongKeyChangesNothing(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	store := s.client()
	right, wrong := testKey(t, 1), testKey(t, 2)
	createSealed(t, store, path, 1<<20, right)
	d := attach(t, store, path, 1, withKey(right))
	if err := put(t, ctx, d, 0, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	d.Abandon() // it stays open: an attach would also have to recover
	before := s.dump()
	for _, key := range []disk.KEK{nil, wrong} {
		for what, err := range map[string]error{
			"attach": func() error {
				_, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: 2, Key: key})
				return err
			}(),
			"read": func() error {
				_, err := disk.OpenReadOnly(ctx, store, path, "", disk.ReadOnlyOptions{Key: key})
				return err
			}(),
			"read a checkpoint": func() error {
				_, err := disk.OpenReadOnly(ctx, store, path, "c", disk.ReadOnlyOptions{Key: key})
				return err
			}(),
			"prepare": func() error {
				_, err := disk.Prepare(ctx, store, path, disk.PrepareOptions{Key: key})
				return err
			}(),
			"fork": func() error {
				_, err := disk.Fork(ctx, store, path, "c", "child", disk.ForkOptions{Key: key})
				return err
			}(),
			"rekey": func() error {
				_, err := disk.Rekey(ctx, store, path, key, right)
				return err
			}(),
		} {
			wantKind(t, what, err, errs.Denied)
			if !strings.Contains(errs.RemedyOf(err), "key") {
				t.Errorf("%s: %v has the remedy %q", what, err, errs.RemedyOf(err))
			}
			if key != nil && (!strings.Contains(err.Error(), key.ID()) ||
				!strings.Contains(err.Error(), right.ID())) {
				t.Errorf("%s: %q doesn't name both keys", what, err)
			}
		}
	}
	if s.dump() != before {
		t.Error("something has changed in the store")
	}
	d = attach(t, store, path, 2, withKey(right))
	if d.Stats().Replayed != 0 && d.Stats().LogObjects != 0 {
		t.Errorf("%+v", d.Stats())
	}
	mustClose(t, d)
}

func (s *sim) dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all strings.Builder
	for _, k := range sortedKeys(s.objs) {
		all.WriteString(k + "=" + string(s.objs[k].etag) + "\n")
	}
	return all.String()
}

func sortedKeys(m map[string]simObject) []string {
	return slices.Sorted(maps.Keys(m))
}

// TestForksKeepTheirParentsKeys goes down a line: in the clear, encrypted, under another key, and
// again.
func TestForksKeepTheirParentsKeys(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	store := s.client()
	rng := rand.New(rand.NewPCG(3, 3))
	a, b := testKey(t, 1), testKey(t, 2)
	img := make([]byte, 2<<20)
	create(t, store, "d0", int64(len(img)))
	keys := []disk.KEK{nil, a, b, b}
	images := map[string][]byte{}
	for i, key := range keys {
		name := "d" + string(rune('0'+i))
		for gen := range uint64(3) {
			d := attach(t, store, name, gen+1, small, withKey(key))
			checkAll(t, ctx, d, img)
			churn(t, ctx, rng, d, img, 20)
			if gen == 1 { // a crash after a flush
				if err := d.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				d.Abandon()
				continue
			}
			mustClose(t, d)
		}
		images[name] = bytes.Clone(img)
		if i+1 == len(keys) {
			break
		}
		if _, err := disk.CheckpointClosed(ctx, store, name, "c"); err != nil {
			t.Fatal(err)
		}
		opts := disk.ForkOptions{Key: keys[i+1], ParentKey: key}
		h, err := disk.Fork(ctx, store, name, "c", "d"+string(rune('1'+i)), opts)
		if err != nil {
			t.Fatal(err)
		}
		all, err := disk.Unlock(ctx, h, keys[i+1])
		if err != nil || len(all) != i+1 {
			t.Fatalf("%s has %d keys: %v", name, len(all), err)
		}
	}
	// A fork of an encrypted disk is encrypted though nobody asked for it.
	if _, err := disk.Fork(ctx, store, "d2", "c", "d4",
		disk.ForkOptions{ParentKey: b}); err != nil {
		t.Fatal(err)
	}
	if h, err := disk.ReadHead(ctx, store, "d4"); err != nil || h.Encryption == nil {
		t.Fatalf("%+v %v", h, err)
	}
	for i, key := range keys {
		name := "d" + string(rune('0'+i))
		p, err := disk.Prepare(ctx, store, name, disk.PrepareOptions{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		d := attach(t, store, name, 9, withKey(key), func(o *disk.AttachOptions) { o.Prepared = p })
		checkAll(t, ctx, d, images[name])
		mustClose(t, d)
		if i+1 < len(keys) {
			r, err := disk.OpenReadOnly(ctx, store, name, "c", disk.ReadOnlyOptions{Key: key})
			if err != nil {
				t.Fatal(err)
			}
			checkAll(t, ctx, r, images[name])
			_ = r.Close()
		}
		checkSealed(t, ctx, store, name, key)
	}
}

// checkSealed checks a disk with its key, and without. Forks under other keys are read as far as
// that goes.
func checkSealed(t *testing.T, ctx context.Context, store *simClient, name string, key disk.KEK) {
	t.Helper()
	r, err := fsck.Check(ctx, store, name, fsck.Options{Data: true, Key: key})
	if err != nil || r.DamageCount > 0 || (r.Locked > 0 && r.Forks == 0) ||
		(r.Cipher != "") != (key != nil) {
		t.Errorf("%s: %+v %v", name, r, err)
	}
	r, err = fsck.Check(ctx, store, name, fsck.Options{Data: true})
	if err != nil || r.DamageCount > 0 || r.Locked == 0 || r.Frames == 0 {
		t.Errorf("%s without a key: %+v %v", name, r, err)
	}
}

// TestRekeyUnderAWriter changes the key while the disk is written, and nobody notices.
func TestRekeyUnderAWriter(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	store := s.client()
	old, next := testKey(t, 1), testKey(t, 2)
	createSealed(t, store, path, 1<<20, old)
	d := attach(t, store, path, 1, small, withKey(old))
	img := make([]byte, 1<<20)
	rng := rand.New(rand.NewPCG(4, 4))
	churn(t, ctx, rng, d, img, 20)
	if _, err := d.Checkpoint(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(img)
	h, err := disk.Rekey(ctx, s.client(), path, old, next)
	if err != nil || h.Encryption.KEK != next.ID() {
		t.Fatalf("%+v %v", h, err)
	}
	churn(t, ctx, rng, d, img, 20)
	mustClose(t, d)
	if d.Head().Encryption.KEK != next.ID() {
		t.Error("the writer has put the old key back")
	}
	_, err = disk.Attach(ctx, store, path, disk.AttachOptions{Generation: 2, Key: old})
	wantKind(t, "attach with the old key", err, errs.Denied)
	d = attach(t, store, path, 2, withKey(next))
	checkAll(t, ctx, d, img)
	mustClose(t, d)
	// older than the new key
	r, err := disk.OpenReadOnly(ctx, store, path, "c", disk.ReadOnlyOptions{Key: next})
	if err != nil {
		t.Fatal(err)
	}
	checkAll(t, ctx, r, before)
	_ = r.Close()
	create(t, store, "clear", 1<<20)
	_, err = disk.Rekey(ctx, store, "clear", old, next)
	wantKind(t, "rekey of a disk in the clear", err, errs.Invalid)
	createSealed(t, store, "forgetful", 1<<20, old)
	_, err = disk.Rekey(ctx, store, "forgetful", old, forgetful{next})
	wantKind(t, "rekey to a key that doesn't give back", err, errs.Denied)
	mustClose(t, attach(t, store, "forgetful", 1, withKey(old)))
}

// forgetful unwraps to something else.
type forgetful struct{ disk.KEK }

func (forgetful) Unwrap(context.Context, string, []byte) ([]byte, error) {
	return make([]byte, 32), nil
}

// TestNoObjectIsSealedTwiceAlike: the same writes in a bucket that was put back to an older state,
// epoch and sequence numbers alike, are under other keys.
func TestNoObjectIsSealedTwiceAlike(t *testing.T) {
	ctx := testCtx(t)
	key := testKey(t, 1)
	s := newSim()
	createSealed(t, s.client(), path, 1<<20, key)
	write := func(c *simClient) []byte {
		d := attach(t, c, path, 1, withKey(key))
		if err := put(t, ctx, d, 0, 1); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		return c.s.objs[path+"/log/0000000000000001/0000000000000001"].body
	}
	restored := newSim()
	for k, v := range s.objs {
		restored.objs[k] = v
	}
	a, b := write(s.client()), write(restored.client())
	ha, err := format.DecodeLogHeader(a)
	if err != nil {
		t.Fatal(err)
	}
	hb, err := format.DecodeLogHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	if ha.Epoch != hb.Epoch || ha.Seq != hb.Seq || ha.Nonce == hb.Nonce ||
		bytes.Equal(a[ha.Len():], b[hb.Len():]) {
		t.Errorf("%+v and %+v", ha, hb)
	}
}

// TestAFlippedBitInTheStoreIsFound changes one object after the other and reads everything.
func TestAFlippedBitInTheStoreIsFound(t *testing.T) {
	ctx := testCtx(t)
	key := testKey(t, 1)
	s := newSim()
	createSealed(t, s.client(), path, 1<<20, key)
	d := attach(t, s.client(), path, 1, small, withKey(key),
		func(o *disk.AttachOptions) { o.BootWindow, o.CheckpointObjects = -1, 1000 })
	img := make([]byte, 1<<20)
	mark(img, 1)
	if err := d.WriteAt(ctx, img, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	rng := rand.New(rand.NewPCG(6, 6))
	for _, k := range sortedKeys(s.objs) {
		if strings.HasSuffix(k, "/head") {
			continue
		}
		for range 8 {
			bad := newSim()
			for k, v := range s.objs {
				bad.objs[k] = v
			}
			o := bad.objs[k]
			o.body = bytes.Clone(o.body)
			at := rng.IntN(len(o.body))
			if strings.HasSuffix(k, "/pages") {
				at = 32 + rng.IntN(len(o.body)-32) // the header of this object is nobody's business
			}
			o.body[at] ^= 1 << rng.IntN(8)
			bad.objs[k] = o
			got := make([]byte, len(img))
			r, err := disk.OpenReadOnly(ctx, bad.client(), path, "", disk.ReadOnlyOptions{Key: key})
			if err == nil {
				err = r.ReadAt(ctx, got, 0)
				_ = r.Close()
			}
			if !errs.Is(err, errs.Corrupt) {
				t.Errorf("%s, byte %d: %v", k, at, err)
			}
		}
	}
}

// TestCompactionOfAnEncryptedDisk: what is repacked is encrypted anew, and read by who has the key
// alone.
func TestCompactionOfAnEncryptedDisk(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	store, key := s.client(), testKey(t, 7)
	img := make([]byte, 4<<20)
	createSealed(t, store, path, int64(len(img)), key)
	for gen := range uint64(2) {
		d := attach(t, store, path, gen+1, small, withKey(key))
		churn(t, ctx, rand.New(rand.NewPCG(gen, 5)), d, img, 120)
		done, err := d.Compact(ctx, disk.CompactOptions{})
		if err != nil || done.Packed == 0 {
			t.Fatal(done, err)
		}
		checkAll(t, ctx, d, img)
		mustClose(t, d)
	}
	packed := s.keys("/seg/")
	if len(packed) == 0 {
		t.Fatal("no packed segment")
	}
	for _, k := range packed {
		h, err := format.DecodeLogHeader(s.objs[k].body)
		if err != nil || h.Cipher != format.CipherAES256GCM || len(h.Runs) != 0 {
			t.Errorf("%s: %+v, %v", k, h, err)
		}
	}
	d := attach(t, store, path, 9, withKey(key))
	checkAll(t, ctx, d, img)
	mustClose(t, d)
	sound(t, s, path)
}
