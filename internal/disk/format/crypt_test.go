package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The golden files are under these. A version that can't read them any more has lost somebody's
// disk.
var (
	keyedDisk    = ulid.ULID(id(7)).String()
	goldenSecret = [KeyLen]byte([]byte("the data key of the golden disk."))
	goldenBundle = [KeyLen]byte([]byte("the bundle key of the golden one"))
)

func sampleKeys() Keys { return Keys{keyedDisk: NewDataKey(id(7), 1, goldenSecret)} }

// sealedLog is sampleLog's object on an encrypted disk.
func sealedLog(t testing.TB, c *Codec) ([]byte, *LogHeader, []byte) {
	t.Helper()
	_, plain, content := sampleLog(c)
	h := *plain
	h.Disk, h.Cipher, h.KeyID, h.Frames = id(7), CipherAES256GCM, 1, make([]Frame, 2)
	key, err := sampleKeys()[keyedDisk].Object(h.Kind, h.Epoch, h.Seq, h.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	obj := make([]byte, h.Len())
	w := c.FrameWriter(h.Kind, h.Len(), key)
	obj, h.Frames[0] = w.Append(obj, content[:FrameSize])
	obj, h.Frames[1] = w.Append(obj, content[FrameSize:])
	h.Body = uint32(len(obj) - h.Len())
	h.Seal(obj[:h.Len()], key)
	return obj, &h, content
}

func goldenEncryption(t testing.TB) *Encryption {
	t.Helper()
	sealed, err := SealKeys(sampleKeys(), id(7), 1, goldenBundle)
	if err != nil {
		t.Fatal(err)
	}
	return &Encryption{Cipher: CipherName, KeyID: 1, KEK: "file:0011223344556677",
		Wrapped: []byte("wrapped"), Keys: sealed}
}

func pageKey(t testing.TB, epoch uint64, n uint32) *PageKey {
	t.Helper()
	k, err := sampleKeys().Page(keyedDisk, PageRef{Epoch: epoch, N: n})
	if err != nil || k == nil {
		t.Fatal(k, err)
	}
	return k
}

// decodeSealed decodes a whole encrypted object.
func decodeSealed(c *Codec, obj []byte, uid string, keys Keys) ([]byte, *LogHeader, error) {
	h, err := DecodeLogHeader(obj)
	if err != nil {
		return nil, nil, err
	}
	key, err := keys.Open(uid, h)
	if err != nil {
		return nil, h, err
	}
	var all []byte
	for i, f := range h.Frames {
		start := h.Len() + int(f.Offset)
		if start+int(f.Length) > len(obj) {
			return nil, h, corrupt("cut")
		}
		if all, err = c.DecodeFrame(all, obj[start:start+int(f.Length)], f, key, i); err != nil {
			return nil, h, err
		}
	}
	return all, h, nil
}

func TestSealedLogObject(t *testing.T) {
	c := codec(t)
	obj, want, content := sealedLog(t, c)
	got, h, err := decodeSealed(c, obj, keyedDisk, sampleKeys())
	if err != nil || !bytes.Equal(got, content) || !reflect.DeepEqual(h, want) {
		t.Fatalf("%+v, want %+v: %v", h, want, err)
	}
	if _, _, err := decodeSealed(c, obj, keyedDisk, nil); !errs.Is(err, errs.Denied) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("without a key: %v", err)
	}
	other := Keys{keyedDisk: NewDataKey(id(7), 1, [KeyLen]byte{1})}
	if _, _, err := decodeSealed(c, obj, keyedDisk, other); !errs.Is(err, errs.Corrupt) {
		t.Errorf("with another key: %v", err)
	}
	plain, _, _ := sampleLog(c)
	if _, _, err := decodeSealed(c, plain, keyedDisk, sampleKeys()); !errs.Is(err, errs.Corrupt) {
		t.Errorf("an object in the clear on an encrypted disk: %v", err)
	}
	fence, err := DecodeLogHeader(EncodeFence(id(7), id(2), 3, 4, 5))
	if err != nil {
		t.Fatal(err)
	}
	if k, err := sampleKeys().Open(keyedDisk, fence); k != nil || err != nil {
		t.Errorf("a fence: %v", err)
	}
}

// TestEveryFlippedBitOfASealedObject flips each bit of the header and a sample of the others, and
// mends all checksums as a malicious store would.
func TestEveryFlippedBitOfASealedObject(t *testing.T) {
	c := codec(t)
	obj, want, content := sealedLog(t, c)
	hlen := want.Len()
	for bit := 0; bit < len(obj)*8; bit++ {
		if bit >= hlen*8 && bit%61 != 0 {
			continue
		}
		bad := bytes.Clone(obj)
		bad[bit/8] ^= 1 << (bit % 8)
		mend(bad, want)
		if bytes.Equal(bad, obj) { // it was in a checksum
			continue
		}
		if got, h, err := decodeSealed(c, bad, keyedDisk, sampleKeys()); err == nil {
			t.Fatalf("bit %d of byte %d: accepted, %+v, content equal: %v", bit%8, bit/8, h,
				bytes.Equal(got, content))
		}
	}
}

// mend makes the checksums of a changed object right.
func mend(obj []byte, h *LogHeader) {
	table := LogFixedLen + len(h.Runs)*runLen
	for i, f := range h.Frames {
		start := h.Len() + int(f.Offset)
		le.PutUint32(obj[table+i*frameLen+8:], CRC(obj[start:start+int(f.Length)]))
	}
	le.PutUint32(obj[h.Len()-4:], CRC(obj[:h.Len()-4]))
}

// TestNothingSealedCanBeMoved puts frames, objects, pages and roots where others were, with right
// checksums.
func TestNothingSealedCanBeMoved(t *testing.T) {
	c := codec(t)
	key, err := sampleKeys()[keyedDisk].Object(KindLog, 3, 9, id(50))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), FrameSize/16)
	w := c.FrameWriter(KindLog, 0, key)
	w.next = 4
	stored, f := w.Append(nil, content)
	if _, err := c.DecodeFrame(nil, stored, f, key, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DecodeFrame(nil, stored, f, key, 5); !errs.Is(err, errs.Corrupt) {
		t.Errorf("frame 4 as frame 5: %v", err)
	}
	for name, o := range map[string]struct {
		kind       uint8
		epoch, seq uint64
		nonce      ID
	}{"segment": {KindSeg, 3, 9, id(50)}, "epoch": {KindLog, 4, 9, id(50)},
		"sequence": {KindLog, 3, 8, id(50)}, "nonce": {KindLog, 3, 9, id(51)}} {
		k, err := sampleKeys()[keyedDisk].Object(o.kind, o.epoch, o.seq, o.nonce)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.DecodeFrame(nil, stored, f, k, 4); !errs.Is(err, errs.Corrupt) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	region, _, segs, _, dir, _ := samplePages()
	for _, page := range [][]byte{region, segs, dir} {
		p := pageKey(t, 4, 2)
		object, ref := c.AppendStored(make([]byte, PagesHeaderLen), page, p)
		if got, err := c.DecodeStored(nil, object[ref.Offset:], ref, p); err != nil ||
			!bytes.Equal(got, page) {
			t.Fatalf("page %c: %v", page[0], err)
		}
		moved := ref
		moved.Offset += 8
		if _, err := c.DecodeStored(nil, object[ref.Offset:], moved, p); !errs.Is(err,
			errs.Corrupt) {
			t.Errorf("page %c at another place: %v", page[0], err)
		}
		for _, k := range []*PageKey{pageKey(t, 4, 3), pageKey(t, 5, 2)} {
			if _, err := c.DecodeStored(nil, object[ref.Offset:], ref, k); !errs.Is(err,
				errs.Corrupt) {
				t.Errorf("page %c of another map: %v", page[0], err)
			}
		}
		plain, pref := c.AppendStored(make([]byte, PagesHeaderLen), page, nil)
		if _, err := c.DecodeStored(nil, plain[pref.Offset:], pref, p); !errs.Is(err,
			errs.Corrupt) {
			t.Errorf("page %c in the clear on an encrypted disk: %v", page[0], err)
		}
		_, err := c.DecodeStored(nil, object[ref.Offset:], ref, nil)
		if secret := page[0] == pageRegion; errs.Is(err, errs.Denied) != secret ||
			(err != nil) != secret {
			t.Errorf("page %c without a key: %v", page[0], err)
		}
	}
	root := c.EncodeRoot(sampleRoot(), pageKey(t, 4, 2))
	if got, err := c.DecodeRoot(root, pageKey(t, 4, 2)); err != nil ||
		!reflect.DeepEqual(got, sampleRoot()) {
		t.Fatalf("%+v %v", got, err)
	}
	if got, err := c.DecodeRoot(root, nil); err != nil || !reflect.DeepEqual(got, sampleRoot()) {
		t.Errorf("a root without a key: %v", err)
	}
	if _, err := c.DecodeRoot(root, pageKey(t, 4, 3)); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a root of another map: %v", err)
	}
	if _, err := c.DecodeRoot(c.EncodeRoot(sampleRoot(), nil), pageKey(t, 4, 2)); !errs.Is(err,
		errs.Corrupt) {
		t.Errorf("an unsigned root on an encrypted disk: %v", err)
	}
}

// TestSealedPagesDifferEachTime: the same page twice is not the same bytes, so that nobody sees
// what didn't change.
func TestSealedPagesDifferEachTime(t *testing.T) {
	c := codec(t)
	region, _, _, _, _, _ := samplePages()
	a, _ := c.AppendStored(nil, region, pageKey(t, 4, 2))
	b, _ := c.AppendStored(nil, region, pageKey(t, 4, 2))
	if bytes.Equal(a, b) {
		t.Error("a nonce was used twice")
	}
}

func TestKeyBundle(t *testing.T) {
	e := goldenEncryption(t)
	keys, err := e.OpenKeys(id(7), goldenBundle)
	if err != nil || !reflect.DeepEqual(keys, sampleKeys()) {
		t.Fatalf("%v %v", keys, err)
	}
	if _, err := e.OpenKeys(id(7), [KeyLen]byte{}); !errs.Is(err, errs.Denied) {
		t.Errorf("another bundle key: %v", err)
	}
	if _, err := e.OpenKeys(id(8), goldenBundle); !errs.Is(err, errs.Denied) {
		t.Errorf("another disk: %v", err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v", keys[keyedDisk], keys, keys[keyedDisk]),
		fmt.Sprint(keys)} {
		if strings.Contains(s, "116 104 101") || strings.Contains(s, string(goldenSecret[:8])) ||
			strings.Contains(s, "0x74") {
			t.Errorf("a key shows its secret: %s", s)
		}
	}
}

// TestGoldenSealed decodes encrypted files that version 1 wrote. SLUICE_GOLDEN=write makes those
// that aren't there.
func TestGoldenSealed(t *testing.T) {
	c := codec(t)
	log, _, content := sealedLog(t, c)
	region, ext, segs, entries, _, _ := samplePages()
	type stored struct {
		Ref  PageRef
		Data []byte
	}
	pages := make([]stored, 2)
	for i, page := range [][]byte{region, segs} {
		pages[i].Data, pages[i].Ref = c.AppendStored(nil, page, pageKey(t, 4, 2))
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	head := sampleHead()
	head.UID, head.Lineage[0].UID = keyedDisk, keyedDisk
	head.Features, head.Encryption = []string{FeatureEncryption}, goldenEncryption(t)
	for name, now := range map[string][]byte{"sealed-log-object": log,
		"sealed-pages.json":   encode(pages),
		"signed-map-root":     c.EncodeRoot(sampleRoot(), pageKey(t, 4, 2)),
		"encrypted-head.json": encode(head)} {
		file := filepath.Join("..", "testdata", "v1", name)
		if _, err := os.Stat(file); err != nil && os.Getenv("SLUICE_GOLDEN") == "write" {
			if err := os.WriteFile(file, now, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "sealed-log-object":
			if got, _, err := decodeSealed(c, old, keyedDisk, sampleKeys()); err != nil ||
				!bytes.Equal(got, content) {
				t.Error(err)
			}
		case "sealed-pages.json":
			var p []stored
			if err := json.Unmarshal(old, &p); err != nil || len(p) != 2 {
				t.Fatal(err)
			}
			r, err := c.DecodeStored(nil, p[0].Data, p[0].Ref, pageKey(t, 4, 2))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := DecodeRegionPage(nil, r, 77); err != nil ||
				!reflect.DeepEqual(got, ext) {
				t.Error(err)
			}
			if r, err = c.DecodeStored(nil, p[1].Data, p[1].Ref, pageKey(t, 4, 2)); err != nil {
				t.Fatal(err)
			}
			got := make([]SegmentEntry, SegPageEntries)
			if err := DecodeSegPage(got, r, 3); err != nil || !reflect.DeepEqual(got, entries) {
				t.Error(err)
			}
		case "signed-map-root":
			if got, err := c.DecodeRoot(old, pageKey(t, 4, 2)); err != nil ||
				!reflect.DeepEqual(got, sampleRoot()) {
				t.Error(err)
			}
		case "encrypted-head.json":
			h, err := DecodeHead(old)
			if err != nil {
				t.Fatal(err)
			}
			if keys, err := h.Encryption.OpenKeys(id(7), goldenBundle); err != nil ||
				!reflect.DeepEqual(keys, sampleKeys()) {
				t.Error(err)
			}
		}
	}
}
