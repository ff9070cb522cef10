package format

import "testing"

// The decoders must refuse or accept any bytes without a panic or an absurd allocation, and what they accept
// must hold what they promise.

func FuzzLogHeader(f *testing.F) {
	obj, h, _ := sampleLog(codec(f))
	f.Add(obj[:h.Len()])
	f.Add(EncodeFence(id(1), id(2), 3, 4, 5))
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
		out := make([]byte, h.Len())
		h.Put(out)
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
	f.Add(c.EncodeRoot(sampleRoot()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= rootFixed {
			le.PutUint32(b[16:], CRC(b[rootFixed:]))
			le.PutUint32(b[36:], CRC(b[:36]))
		}
		if r, err := c.DecodeRoot(b); err == nil && (r.Size <= 0 || len(r.Lineage) == 0) {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzFrame(f *testing.F) {
	c := codec(f)
	obj, h, _ := sampleLog(c)
	fr := h.Frames[0]
	f.Add(obj[h.Len():h.Len()+int(fr.Length)], uint16(fr.Flags), uint16(fr.Blocks))
	f.Fuzz(func(t *testing.T, b []byte, flags, blocks uint16) {
		got, err := c.DecodeFrame(nil, b, Frame{Length: uint32(len(b)), CRC: CRC(b), Flags: flags, Blocks: blocks})
		if err == nil && len(got) != int(blocks)*BlockSize {
			t.Fatalf("%d bytes", len(got))
		}
		page, err := c.DecodeStored(nil, b, PageRef{Length: uint32(len(b)), CRC: CRC(b), Flags: flags})
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
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := DecodeHead(b); err == nil && (h.Size <= 0 || len(h.Lineage) == 0 || !ValidPath(h.Lineage[0].Path)) {
			t.Fatalf("%+v", h)
		}
		_, _ = DecodeCheckpoint(b)
		_, _ = DecodeRef(b)
	})
}
