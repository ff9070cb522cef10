package format

import (
	"bytes"
	"reflect"
	"testing"
)

// The decoders must refuse or accept any bytes without a panic or an absurd allocation, and what
// they accept must hold what they promise.

func FuzzLogHeader(f *testing.F) {
	obj, h, _ := sampleLog(codec(f))
	f.Add(obj[:h.Len()])
	f.Add(EncodeFence(id(1), id(2), 3, 4, 5))
	sealed, sh, _ := sealedLog(f, codec(f))
	f.Add(sealed[:sh.Len()])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= LogFixedLen+4 { // let the fuzzer past the checksum
			if n, err := LogHeaderLenOf(b); err == nil && n <= len(b) {
				le.PutUint32(b[n-4:], CRC(b[:n-4]))
			}
		}
		h, err := DecodeLogHeader(b)
		if err != nil {
			return
		}
		if h.Cipher != CipherNone { // nobody gets past the tag
			if _, err := sampleKeys().Open(keyedDisk, h); err == nil && h.Seq != 9 {
				t.Fatalf("opened %+v", h)
			}
			return
		}
		out := make([]byte, h.Len())
		h.put(out)
		again, err := DecodeLogHeader(out)
		if err != nil || again.Blocks != h.Blocks || len(again.Runs) != len(h.Runs) {
			t.Fatalf("accepted, but not the second time: %v", err)
		}
	})
}

func FuzzPages(f *testing.F) {
	region, _, segs, _, dir, _ := samplePages()
	f.Add(region, uint32(77))
	f.Add(segs, uint32(3))
	f.Add(dir, uint32(2))
	f.Fuzz(func(t *testing.T, b []byte, index uint32) {
		if ext, err := DecodeRegionPage(nil, b, index); err == nil {
			end := uint32(0)
			for _, e := range ext {
				if e.Start() < end || e.End() > RegionBlocks {
					t.Fatal("extents overlap")
				}
				end = e.End()
			}
		}
		_ = DecodeSegPage(make([]SegmentEntry, SegPageEntries), b, index)
		_ = DecodeDirPage(make([]PageRef, DirRegions), b, index)
	})
}

func FuzzRoot(f *testing.F) {
	c := codec(f)
	f.Add(c.EncodeRoot(sampleRoot(), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= rootFixed {
			le.PutUint32(b[16:], CRC(b[rootFixed:]))
			le.PutUint32(b[36:], CRC(b[:36]))
		}
		if r, err := c.DecodeRoot(b, nil); err == nil && (r.Size <= 0 || len(r.Lineage) == 0) {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzFrame(f *testing.F) {
	c := codec(f)
	obj, h, _ := sampleLog(c)
	fr := h.Frames[0]
	f.Add(obj[h.Len():h.Len()+int(fr.Length)], uint16(fr.Flags), uint16(fr.Blocks))
	dense, fr := c.FrameWriter(KindSeg, 0, nil).Append(nil, make([]byte, FrameSize))
	f.Add(dense, fr.Flags, fr.Blocks)
	f.Fuzz(func(t *testing.T, b []byte, flags, blocks uint16) {
		got, err := c.DecodeFrame(nil, b, Frame{Length: uint32(len(b)), CRC: CRC(b), Flags: flags,
			Blocks: blocks}, nil, 0)
		if err == nil && len(got) != int(blocks)*BlockSize {
			t.Fatalf("%d bytes", len(got))
		}
		page, err := c.DecodeStored(nil,
			b, PageRef{Length: uint32(len(b)), CRC: CRC(b), Flags: flags}, nil)
		if err == nil && len(page) > maxPageContents {
			t.Fatalf("page of %d bytes", len(page))
		}
	})
}

func FuzzDocuments(f *testing.F) {
	b, err := Encode(sampleHead())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if b, err = Encode(sampleLogStoreHead()); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := DecodeHead(b); err == nil && h.LogStore != nil && h.State == StateOpen {
			if s, ok := h.LogStore.Session(h.Log.Epoch); h.Log.Epoch <= h.Epoch &&
				(!ok || len(s) != ulidLen) {
				t.Fatalf("a log to replay that can't be found: %+v", h.LogStore)
			}
		}
		if h, err := DecodeHead(b); err == nil &&
			(h.Size <= 0 || len(h.Lineage) == 0 || !ValidPath(h.Lineage[0].Path)) {
			t.Fatalf("%+v", h)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	h := sampleHead()
	b, err := Encode(&Checkpoint{Version: Version, Name: "v1", UID: h.UID, Nonce: h.Nonce,
		Size: h.Size, Mode: h.Mode,
		Root: h.Root, Lineage: h.Lineage, Created: h.Created})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := DecodeCheckpoint(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCheckpoint(b)
		if err != nil {
			return
		}
		if c.Size <= 0 || len(c.Lineage) == 0 || c.Root != nil &&
			(c.Root.Lineage < 0 || c.Root.Lineage >= len(c.Lineage)) {
			t.Fatalf("%+v", c)
		}
		encodeAgain(t, c, func(b []byte) error { _, err := DecodeCheckpoint(b); return err })
	})
}

func FuzzRef(f *testing.F) {
	b, err := Encode(&Ref{Version: Version, Child: "forks/a", Checkpoint: "v1",
		Created: sampleHead().Created})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := DecodeRef(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRef(b); err == nil {
			encodeAgain(t, r, func(b []byte) error { _, err := DecodeRef(b); return err })
		}
	})
}

func FuzzLogIdentity(f *testing.F) {
	placed := sampleIdentity()
	placed.Pool = "s3://bucket/pool?region=x"
	for _, i := range []*LogIdentity{sampleIdentity(), placed} {
		b, err := Encode(i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := DecodeLogIdentity(b); err == nil {
			if i.UID == "" || len(i.Binding) != ulidLen || !ValidPath(i.Path) {
				t.Fatalf("%+v", i)
			}
			encodeAgain(t, i, func(b []byte) error { _, err := DecodeLogIdentity(b); return err })
		}
	})
}

// encodeAgain checks that what was accepted is accepted in its own stored form too.
func encodeAgain(t *testing.T, doc any, decode func([]byte) error) {
	t.Helper()
	b, err := Encode(doc)
	if err == nil {
		err = decode(b)
	}
	if err != nil {
		t.Fatalf("accepted, but not the second time: %v", err)
	}
}

// FuzzSealed holds everything that is under a key against any bytes: nothing is accepted but what
// was sealed.
func FuzzSealed(f *testing.F) {
	c := codec(f)
	obj, h, _ := sealedLog(f, c)
	fr := h.Frames[0]
	okey, err := sampleKeys()[keyedDisk].Object(KindLog, h.Epoch, h.Seq, h.Nonce)
	if err != nil {
		f.Fatal(err)
	}
	pkey, err := sampleKeys()[keyedDisk].Pages(4, 2)
	if err != nil {
		f.Fatal(err)
	}
	frame := obj[h.Len() : h.Len()+int(fr.Length)]
	root := c.EncodeRoot(sampleRoot(), pkey)
	want, err := c.DecodeRoot(root, pkey)
	if err != nil {
		f.Fatal(err)
	}
	bundle := goldenEncryption(f)
	f.Add(frame, fr.Flags, fr.Blocks)
	f.Add(root, uint16(0), uint16(0))
	f.Add(bundle.Keys, uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, flags, blocks uint16) {
		if _, err := c.DecodeFrame(nil, b, Frame{Length: uint32(len(b)), CRC: CRC(b), Flags: flags,
			Blocks: blocks}, okey, 0); err == nil && !bytes.Equal(b, frame) {
			t.Fatal("a frame that nobody sealed")
		}
		for _, r := range []PageRef{{Key: 1, Flags: flags}, {Key: 1, Flags: flags | PageSigned},
			{Flags: flags}} {
			r.Length, r.CRC, r.Offset = uint32(len(b)), CRC(b), uint32(blocks)
			if _, err := c.DecodeStored(nil, b, r, pkey); err == nil {
				t.Fatal("a page that nobody sealed")
			}
		}
		if len(b) >= rootFixed {
			r := bytes.Clone(b)
			le.PutUint32(r[16:], CRC(r[rootFixed:]))
			le.PutUint32(r[36:], CRC(r[:36]))
			// Sealed anew in each process that fuzzes, so that the content tells and not the bytes.
			if got, err := c.DecodeRoot(r, pkey); err == nil && !reflect.DeepEqual(got, want) {
				t.Fatal("a root that nobody signed")
			}
		}
		e := *bundle
		e.Keys = b
		if _, err := e.OpenKeys(id(7), goldenBundle); err == nil && !bytes.Equal(b, bundle.Keys) {
			t.Fatal("a bundle that nobody sealed")
		}
	})
}

func FuzzPinAndMark(f *testing.F) {
	c := codec(f)
	b, err := c.EncodeMark(sampleMark())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if b, err = Encode(&Pin{Version: 1, ID: "x", Nonce: "N", All: true}); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := DecodePin(b); err == nil && p.All && p.Map != nil {
			t.Fatal("a pin of everything and of one map")
		}
		m, err := c.DecodeMark(b)
		if err != nil {
			return
		}
		for _, d := range m.Disks {
			if !ValidPath(d.Path) {
				t.Fatalf("a mark of %q", d.Path)
			}
		}
	})
}
