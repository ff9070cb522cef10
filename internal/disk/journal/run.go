package journal

import (
	"context"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Sync returns when every record appended before is on the device. Concurrent calls share one sync
// of it.
func (j *Journal) Sync(ctx context.Context) error {
	j.mu.Lock()
	target := j.head.Pos
	for j.err == nil && j.synced < target {
		j.wantSync = true
		j.wake()
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(),
				"the journal's device did not take all writes in time").
				WithRemedy("check the local device that holds the journal")
		}
		j.mu.Lock()
	}
	defer j.mu.Unlock()
	return j.err
}

// Run writes out what is appended, until ctx ends or the device fails. It must run from Begin on.
func (j *Journal) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			j.fail(errs.Wrap(errs.Unavailable, ctx.Err(), "the disk of the journal is detached"))
			return
		case <-j.kick:
		}
		if err := j.round(); err != nil {
			j.fail(err)
			return
		}
	}
}

func (j *Journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = err
	j.noteLocked()
}

// round writes out what has gathered, syncs it if somebody waits for that, and gives back space.
func (j *Journal) round() error {
	j.io.Lock()
	defer j.io.Unlock()
	j.mu.Lock()
	sync := j.wantSync
	j.wantSync = false
	if rest := j.head.Pos % pageSize; sync && rest != 0 {
		j.appendLocked(&Record{Kind: pad}, int(pageSize-rest))
	}
	buf, from, upTo := j.buf, j.written, j.head.Pos
	j.buf, j.spare = j.spare[:0], nil
	// Freed space that is worth a header of its own, or that a writer waits for.
	freed := j.tail.Pos - j.hdr.tail.Pos
	retire := freed > 0 && ((sync && freed > j.ring/4) || j.wantSpace)
	h := *j.hdr
	h.tail = j.tail
	j.mu.Unlock()

	if err := j.writeOut(buf, from); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write the journal")
	}
	if sync && !retire {
		if err := j.f.Sync(); err != nil {
			return errs.Wrap(errs.Unavailable, err, "sync the journal")
		}
	}
	if retire { // its sync covers the records too
		if err := j.putHeaderIO(&h); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.written = upTo
	if sync || retire {
		j.synced = upTo
		j.syncs++
	}
	if retire {
		j.wantSpace = false
	}
	if cap(buf) <= 2*maxWaiting {
		j.spare = buf
	}
	j.noteLocked()
	return nil
}

// writeOut seals the records in buf and writes them at a position of the ring.
func (j *Journal) writeOut(buf []byte, pos uint64) error {
	for b := buf; len(b) > 0; {
		n := le.Uint32(b[4:])
		sealRecord(b[:n])
		b = b[n:]
	}
	for len(buf) > 0 {
		at := pos % j.ring
		n := min(uint64(len(buf)), j.ring-at)
		if _, err := j.f.WriteAt(buf[:n],
			j.base()+int64(at)); err != nil { //nolint:gosec // below the ring's size
			return err
		}
		buf, pos = buf[n:], pos+n
	}
	return nil
}

func (j *Journal) base() int64 { return j.off + headerPages*pageSize }
