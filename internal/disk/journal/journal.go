package journal

import (
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// MinSize is the smallest region, in bytes.
const MinSize = 64 << 10

// writeAt is how much may wait in memory before it is written out without a flush, and maxWaiting
// how much before writers wait for that.
const (
	writeAt    = 1 << 20
	maxWaiting = 8 << 20
)

// File is what a journal is kept on.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync returns when all that was written survives the loss of power.
	Sync() error
	Close() error
}

// Options say which part of the file is the journal's.
type Options struct {
	Offset int64 // bytes; a multiple of 4096
	Size   int64 // bytes; at least MinSize
	// Foreign says that the writes which another disk may have left here are of no use to anybody:
	// they are discarded. Without it they are kept, and Begin fails.
	Foreign bool
}

// Journal is the ring of one attached disk at a time. Append, Room, Mark and Release may be called
// under the caller's lock: they do no I/O. Safe for concurrent use.
type Journal struct {
	f    File
	off  int64 // of the first header page
	ring uint64
	any  bool // Options.Foreign
	kick chan struct{}

	io sync.Mutex // held while the device is read or written; never under mu

	mu        sync.Mutex
	hdr       *header // newest on the device; nil: none
	buf       []byte  // records from written on
	spare     []byte
	head      Mark // where the next record goes
	written   uint64
	synced    uint64
	tail      Mark // the first record that is needed
	wantSync  bool
	wantSpace bool
	err       error         // why it stopped; sticky
	changed   chan struct{} // closed and replaced when one of those has changed
	syncs     uint64
}

// New uses a region of f, whatever is in it. Conflict if that is a journal in use of another size,
// whose writes would be lost.
func New(f File, o Options) (*Journal, error) {
	size := o.Size / pageSize * pageSize
	if o.Offset < 0 || o.Offset%pageSize != 0 || size < MinSize {
		return nil, errs.New(errs.Invalid, "a journal of %d bytes at %d", o.Size, o.Offset).
			WithRemedy("use at least %d bytes at a multiple of %d", MinSize, pageSize)
	}
	j := &Journal{f: f, off: o.Offset, any: o.Foreign, ring: uint64(size - headerPages*pageSize),
		kick: make(chan struct{}, 1), changed: make(chan struct{})}
	hdr, err := j.readHeader()
	if err != nil {
		return nil, err
	}
	if j.hdr = hdr; hdr != nil && hdr.ring != j.ring && hdr.disk != (format.ID{}) && !j.any {
		return nil, errs.New(errs.Conflict, "the journal there has %d bytes, and would have %d",
			hdr.ring+headerPages*pageSize, size).
			WithRemedy("give the size that it has; or remove it if its disk is gone")
	}
	return j, nil
}

// readHeader returns the newer of the two headers, or nil when none is valid.
func (j *Journal) readHeader() (*header, error) {
	var newest *header
	for i := range int64(headerPages) {
		b := make([]byte, pageSize)
		if _, err := j.f.ReadAt(b, j.off+i*pageSize); err != nil {
			continue // an unreadable page is like a torn one
		}
		h, err := decodeHeader(b)
		if errs.Is(err, errs.Unsupported) {
			return nil, err
		}
		if err == nil && (newest == nil || h.count > newest.count) {
			newest = h
		}
	}
	return newest, nil
}

// Matches reports whether the journal holds what the store may lack of the disk, if that is open
// and has s in its head.
func (j *Journal) Matches(disk format.ID, s Session) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.hdr != nil && j.hdr.ring == j.ring && j.hdr.disk == disk && j.hdr.names(s)
}

// MaxContent is the most content that one record can have, in bytes; a multiple of the block size.
func (j *Journal) MaxContent() int {
	return min(MaxData, int(j.ring/4)/format.BlockSize*format.BlockSize) //nolint:gosec // small
}

// Source returns the epoch whose writes the journal holds.
func (j *Journal) Source() Session {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.hdr == nil {
		return Session{}
	}
	return j.hdr.source
}

// Claim records, before the head is claimed by next, that a head with next is to be believed like
// the one with found, which matches.
func (j *Journal) Claim(found, next Session) error {
	j.mu.Lock()
	if j.hdr == nil || !j.hdr.names(found) {
		j.mu.Unlock()
		return errs.New(errs.Internal, "claim a journal that isn't believed")
	}
	h := *j.hdr
	j.mu.Unlock()
	h.claims = [2]Session{found, next}
	return j.putHeader(&h)
}

// MayBegin returns the Conflict that Begin would, and changes nothing.
func (j *Journal) MayBegin(disk format.ID) error {
	if other, used := j.foreign(disk); used {
		return errs.New(errs.Conflict, "the journal holds writes of another disk, uid %s",
			ulid.ULID(other)).
			WithRemedy(
				"attach that disk with it first, or remove it if that disk is gone; or use another journal")
	}
	return nil
}

// Begin empties the journal for a session. Its records can be appended from then on, and Run must
// run. Conflict if another disk may need what is in it.
func (j *Journal) Begin(disk format.ID, s Session) error {
	if err := j.MayBegin(disk); err != nil {
		return err
	}
	if err := j.putHeader(&header{version: versionHash, ring: j.ring, disk: disk, source: s,
		tail: Mark{Record: 1}}); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head, j.tail, j.written, j.synced = Mark{Record: 1}, Mark{Record: 1}, 0, 0
	j.buf, j.err = nil, nil
	return nil
}

// foreign reports whether a disk other than this one has not been closed since it used the journal.
func (j *Journal) foreign(disk format.ID) (format.ID, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.any || j.hdr == nil || j.hdr.disk == disk || j.hdr.disk == (format.ID{}) {
		return format.ID{}, false
	}
	return j.hdr.disk, true
}

// Clear says that the disk, if the journal is its, needs nothing of it any more, and lets another
// one use it.
func (j *Journal) Clear(disk format.ID) error {
	j.mu.Lock()
	own := j.hdr != nil && j.hdr.disk == disk
	j.mu.Unlock()
	if !own {
		return nil
	}
	// Into both pages: a release before refuses a journal of which one has a version that it
	// doesn't know.
	for range headerPages {
		err := j.putHeader(&header{version: versionCRC, ring: j.ring,
			source: Session{Epoch: noEpoch}})
		if err != nil {
			return err
		}
	}
	return nil
}

// noEpoch is the source's epoch of a journal that holds nothing.
const noEpoch = ^uint64(0)

// putHeader writes a header to the older page and syncs it.
func (j *Journal) putHeader(h *header) error {
	j.io.Lock()
	defer j.io.Unlock()
	return j.putHeaderIO(h)
}

// putHeaderIO is putHeader for who holds j.io.
func (j *Journal) putHeaderIO(h *header) error {
	h.count = 1
	j.mu.Lock()
	if j.hdr != nil {
		h.count = j.hdr.count + 1
	}
	j.mu.Unlock()
	if _, err := j.f.WriteAt(h.encode(), j.off+int64(h.count%headerPages)*pageSize); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write the journal's header")
	}
	if err := j.f.Sync(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "sync the journal's header")
	}
	j.mu.Lock()
	j.hdr = h
	j.mu.Unlock()
	return nil
}

// Room reports whether a record with n bytes of content, at most MaxContent, can be appended now;
// if not, the channel is closed when that may have changed. Err says when it never will.
func (j *Journal) Room(n int) (bool, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// A page more, for the padding that a sync adds.
	need := uint64(recordHeader + n + pageSize)
	used := j.head.Pos - j.hdr.tail.Pos
	if used+need > j.ring {
		j.wantSpace = true
		if j.tail.Pos > j.hdr.tail.Pos { // else the next Release does it
			j.wake()
		}
		return false, j.changed
	}
	if len(j.buf) > maxWaiting {
		j.wake()
		return false, j.changed
	}
	return true, nil
}

// Append takes a write, for which there must be Room. content is not kept.
func (j *Journal) Append(r Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.appendLocked(&r, recordHeader+len(r.Blocks))
	if len(j.buf) >= writeAt {
		j.wake()
	}
}

func (j *Journal) appendLocked(r *Record, length int) {
	at := len(j.buf)
	if cap(j.buf)-at < length {
		bigger := make([]byte, at, max(2*cap(j.buf), at+length, 64<<10))
		copy(bigger, j.buf)
		j.buf = bigger
	}
	j.buf = j.buf[:at+length]
	b := j.buf[at:]
	putRecord(b, j.hdr.source.ID, j.head.Record, length, r)
	n := copy(b[recordHeader:], r.Blocks)
	clear(b[recordHeader+n:])
	j.head.Pos += uint64(length)
	j.head.Record++
}

// Mark returns the place after the last record.
func (j *Journal) Mark() Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Release says that no record before m is needed any more.
func (j *Journal) Release(m Mark) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if m.Pos > j.tail.Pos {
		j.tail = m
	}
	if j.wantSpace {
		j.wake()
	}
}

// Err returns why the journal stopped, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Stats of a journal. Bytes are of the ring.
type Stats struct {
	Size  int64  `json:"size"`
	Used  int64  `json:"used"`  // by records that the store may lack
	Syncs uint64 `json:"syncs"` // of the device; flushes share them
}

// Stats returns the counters since it was opened.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{Size: int64(j.ring), Used: int64(j.head.Pos - j.tail.Pos),
		Syncs: j.syncs} //nolint:gosec // below the ring's size
}

// Close closes the file. What was appended and not synced is lost.
func (j *Journal) Close() error {
	j.io.Lock()
	defer j.io.Unlock()
	return j.f.Close()
}

func (j *Journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

func (j *Journal) noteLocked() {
	close(j.changed)
	j.changed = make(chan struct{})
}
