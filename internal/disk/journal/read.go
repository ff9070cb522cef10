package journal

import "github.com/sluice-platform/sluice/internal/x/errs"

// Replay gives the source's records that may be needed, in write order, up to the first one that is
// torn. A device that can't be read is an error; what is torn is the end, and none.
func (j *Journal) Replay(yield func(*Record) error) error {
	j.io.Lock()
	defer j.io.Unlock()
	j.mu.Lock()
	if j.hdr == nil {
		j.mu.Unlock()
		return nil
	}
	h := *j.hdr
	j.mu.Unlock()
	buf := make([]byte, recordHeader+MaxData)
	for at := h.tail; at.Pos-h.tail.Pos+recordHeader <= j.ring; {
		if err := j.readRing(buf[:recordHeader], at.Pos); err != nil {
			return err
		}
		r, err := decodeInfo(buf, h.source.ID, at.Record)
		if err != nil || at.Pos-h.tail.Pos+uint64(r.length) > j.ring {
			return nil
		}
		if err := j.readRing(buf[recordHeader:r.length], at.Pos+recordHeader); err != nil {
			return err
		}
		if checksum(h.version, buf[:r.length]) != r.sum {
			return nil
		}
		if r.Kind != pad {
			r.Blocks = buf[recordHeader:r.length]
			if err := yield(&r.Record); err != nil {
				return err
			}
		}
		at.Pos, at.Record = at.Pos+uint64(r.length), at.Record+1
	}
	return nil
}

// readRing fills p from a position of the ring.
func (j *Journal) readRing(p []byte, pos uint64) error {
	for len(p) > 0 {
		at := pos % j.ring
		n := min(uint64(len(p)), j.ring-at)
		if _, err := j.f.ReadAt(p[:n],
			j.base()+int64(at)); err != nil { //nolint:gosec // below the ring's size
			return errs.Wrap(errs.Unavailable, err, "read the journal").
				WithRemedy(
					"check the local device that holds the journal; detach and attach without it to give up what it has")
		}
		p, pos = p[n:], pos+n
	}
	return nil
}
