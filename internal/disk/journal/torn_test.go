package journal

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
)

// checkedContent returns a block that ends in its own CRC32C, as records of databases do.
func checkedContent(n uint64) []byte {
	b := content(n)
	sum := crc32.Checksum(b[:format.BlockSize-4], castagnoli)
	binary.LittleEndian.PutUint32(b[format.BlockSize-4:], sum)
	return b
}

// twoRecords returns a device with two data records of a session, and where the second's content
// is.
func twoRecords(version uint32) (dev []byte, second int) {
	dev = make([]byte, fuzzSize)
	h := header{version: version, count: 1, ring: fuzzSize - headerPages*pageSize, disk: testDisk,
		source: testSession, tail: Mark{Record: 1}}
	copy(dev[pageSize:], h.encode())
	at := headerPages * pageSize
	for n := uint64(1); n <= 2; n++ {
		b := dev[at : at+recordHeader+format.BlockSize]
		putRecord(b, testSession.ID, n, len(b),
			&Record{Seq: n, Kind: Data, Block: n, Count: 1})
		copy(b[recordHeader:], checkedContent(n))
		le.PutUint32(b, checksum(version, b))
		second = at + recordHeader
		at += len(b)
	}
	return dev, second
}

func seqsOn(t *testing.T, dev []byte) (seqs []uint64) {
	t.Helper()
	j, err := New(journaltest.New(dev, &journaltest.Death{}), Options{Size: fuzzSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Replay(func(r *Record) error {
		seqs = append(seqs, r.Seq)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return seqs
}

// TestTornRecordOfCheckedContent: a header whose content didn't reach the device isn't a record,
// also where what is there instead ends in its own CRC32C, as what should be there does.
func TestTornRecordOfCheckedContent(t *testing.T) {
	dev, second := twoRecords(versionHash)
	wantSeqs(t, seqsOn(t, dev), 1, 2)
	copy(dev[second:], checkedContent(3)) // of an earlier lap
	wantSeqs(t, seqsOn(t, dev), 1, 1)
}

// TestJournalOfTheReleaseBefore: its records are read, and their CRC is still what they have.
func TestJournalOfTheReleaseBefore(t *testing.T) {
	dev, second := twoRecords(versionCRC)
	wantSeqs(t, seqsOn(t, dev), 1, 2)
	dev[second]++
	wantSeqs(t, seqsOn(t, dev), 1, 1)
}

// TestVersionsOfHeaders: a journal in use says how its records are checked; an empty one can be
// used by a release before. A claim is about the records that there are.
func TestVersionsOfHeaders(t *testing.T) {
	old, _ := twoRecords(versionCRC)
	j, err := New(journaltest.New(old, &journaltest.Death{}), Options{Size: fuzzSize})
	if err != nil {
		t.Fatal(err)
	}
	want := func(after string, version uint32) {
		t.Helper()
		if j.hdr.version != version {
			t.Errorf("after %s the version is %d, want %d", after, j.hdr.version, version)
		}
	}
	if err := j.Claim(testSession, Session{Epoch: 8, ID: format.ID{3}}); err != nil {
		t.Fatal(err)
	}
	want("a claim", versionCRC)
	if err := j.Begin(testDisk, Session{Epoch: 8, ID: format.ID{3}}); err != nil {
		t.Fatal(err)
	}
	want("a begin", versionHash)
	if err := j.Clear(testDisk); err != nil {
		t.Fatal(err)
	}
	want("a clear", versionCRC)
	for i := range headerPages {
		page := make([]byte, pageSize)
		if _, err := j.f.ReadAt(page, int64(i)*pageSize); err != nil {
			t.Fatal(err)
		}
		h, err := decodeHeader(page)
		if err != nil || h.version != versionCRC || h.disk != (format.ID{}) {
			t.Errorf("header page %d of an empty journal: %+v, %v", i, h, err)
		}
	}
}
