package journal

import (
	"bytes"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
)

const fuzzSize = MinSize

// seedDevice returns the bytes of a journal with a data, a zero and a pad record.
func seedDevice(t testing.TB) []byte {
	t.Helper()
	dev := make([]byte, fuzzSize)
	h := header{version: versionHash, count: 1, ring: fuzzSize - headerPages*pageSize,
		disk: testDisk, source: testSession, tail: Mark{Record: 1}}
	copy(dev[pageSize:], h.encode())
	at := headerPages * pageSize
	put := func(n uint64, length int, r *Record) {
		b := dev[at : at+length]
		putRecord(b, testSession.ID, n, length, r)
		copy(b[recordHeader:], r.Blocks)
		sealRecord(b)
		at += length
	}
	put(1, recordHeader+format.BlockSize,
		&Record{Seq: 1, Kind: Data, Block: 1, Count: 1, Blocks: content(1)})
	put(2, recordHeader, &Record{Seq: 1, Kind: Zero, Block: 5, Count: 9})
	put(3, 2*recordHeader, &Record{Kind: pad})
	put(4, recordHeader, &Record{Seq: 2, Kind: Zero, Block: 7, Count: 1})
	return dev
}

// FuzzReplay reads whatever is on a device. The records' checksums are put right, so that more than
// those is tried. No record may be of other than whole blocks of a disk.
func FuzzReplay(f *testing.F) {
	f.Add(seedDevice(f)[:4*pageSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		dev := make([]byte, fuzzSize)
		copy(dev, b)
		for ring := dev[headerPages*pageSize:]; len(ring) >= recordHeader; {
			n := le.Uint32(ring[4:])
			if n < recordHeader || int64(n) > int64(len(ring)) {
				break
			}
			sealRecord(ring[:n])
			ring = ring[n:]
		}
		j, err := New(journaltest.New(dev, &journaltest.Death{}), Options{Size: fuzzSize})
		if err != nil {
			return
		}
		if j.hdr == nil || j.hdr.ring != j.ring {
			j.hdr = &header{version: versionHash, ring: j.ring, disk: testDisk, source: testSession,
				tail: Mark{Record: 1}}
		}
		bytesRead := 0
		if err := j.Replay(func(r *Record) error {
			bytesRead += recordHeader + len(r.Blocks)
			if r.Kind != Data && r.Kind != Zero || r.Count == 0 || r.Block+r.Count > maxBlocks {
				t.Fatalf("record %+v", r)
			}
			if want := r.Count * format.BlockSize; r.Kind == Data &&
				uint64(len(r.Blocks)) != want || r.Kind == Zero && len(r.Blocks) != 0 {
				t.Fatalf("record of %d blocks with %d bytes", r.Count, len(r.Blocks))
			}
			return nil
		}); err != nil || bytesRead > fuzzSize {
			t.Fatalf("%d bytes of records from %d: %v", bytesRead, fuzzSize, err)
		}
	})
}

func TestFuzzSeedIsReplayed(t *testing.T) {
	j, err := New(journaltest.New(seedDevice(t), &journaltest.Death{}), Options{Size: fuzzSize})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := j.Replay(func(*Record) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("%d records of the seed are replayed, not 3: %v", n, err)
	}
}

// FuzzDecoders: what a decoder takes, it gives back the same.
func FuzzDecoders(f *testing.F) {
	dev := seedDevice(f)
	f.Add(dev[pageSize : pageSize+headerUsed])
	f.Add(dev[2*pageSize : 2*pageSize+recordHeader])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHeader(b); err == nil {
			again, err := decodeHeader(h.encode())
			if err != nil || *again != *h {
				t.Fatalf("%+v encoded and decoded is %+v: %v", h, again, err)
			}
		}
		if len(b) < recordHeader {
			return
		}
		number := le.Uint64(b[8:])
		r, err := decodeInfo(b, format.ID(b[48:64]), number)
		if err != nil {
			return
		}
		out := make([]byte, recordHeader)
		putRecord(out, format.ID(b[48:64]), r.number, int(r.length), &r.Record)
		if !bytes.Equal(out[4:], b[4:recordHeader]) {
			t.Fatalf("%x encoded again is %x", b[:recordHeader], out)
		}
	})
}
