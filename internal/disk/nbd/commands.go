package nbd

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// zeros is what WRITE_ZEROES writes where a hole won't do. Nobody changes it.
var zeros = make([]byte, 1<<20)

// do carries out one request and returns its answer.
func (s *session) do(ctx context.Context, r *request) [][]byte {
	switch r.cmd {
	case cmdRead:
		return s.read(ctx, r)
	case cmdBlockStatus:
		return s.blockStatus(ctx, r)
	}
	if err := s.change(ctx, r); err != nil {
		return s.fail(r, err)
	}
	return [][]byte{simpleReply(r, 0)}
}

// errNotFast refuses a FAST_ZERO that would take as long as writing.
var errNotFast = errors.New("zeroing without a hole is as slow as writing")

func (s *session) change(ctx context.Context, r *request) error {
	dev, off, n := s.export.Device, int64(r.off), int64(r.length)
	var err error
	switch {
	case r.cmd == cmdWrite:
		err = dev.WriteAt(ctx, r.buf.data, off)
	case r.cmd == cmdTrim:
		err = dev.Trim(ctx, off, n)
	case r.cmd == cmdWriteZeroes && r.flags&cmdFlagNoHole == 0:
		err = dev.Zero(ctx, off, n)
	case r.cmd == cmdWriteZeroes && r.flags&cmdFlagFastZero != 0:
		return errNotFast
	case r.cmd == cmdWriteZeroes:
		for at := int64(0); at < n && err == nil; at += int64(len(zeros)) {
			err = dev.WriteAt(ctx, zeros[:min(n-at, int64(len(zeros)))], off+at)
		}
	}
	if err == nil && (r.cmd == cmdFlush || r.flags&cmdFlagFUA != 0) {
		err = dev.Flush(ctx)
	}
	return err
}

// read answers a READ: in one piece, or, where the client understands it, with holes left out.
func (s *session) read(ctx context.Context, r *request) [][]byte {
	r.buf = s.buffers.get(int(r.length))
	if !s.structured {
		if err := s.export.Device.ReadAt(ctx, r.buf.data, int64(r.off)); err != nil {
			return s.fail(r, err)
		}
		return [][]byte{simpleReply(r, 0), r.buf.data}
	}
	pieces, err := s.pieces(ctx, r)
	if err != nil {
		return s.fail(r, err)
	}
	var parts [][]byte
	for i, p := range pieces {
		last := i == len(pieces)-1
		if !p.data {
			b := chunkHeader(r, chunkOffsetHole, last, 12)
			b = binary.BigEndian.AppendUint64(b, uint64(p.off))
			parts = append(parts, binary.BigEndian.AppendUint32(b, uint32(p.n)))
			continue
		}
		at := p.off - int64(r.off)
		content := r.buf.data[at : at+p.n]
		if err := s.export.Device.ReadAt(ctx, content, p.off); err != nil {
			return s.fail(r, err) // nothing was sent yet
		}
		b := chunkHeader(r, chunkOffsetData, last, uint32(8+p.n))
		parts = append(parts, binary.BigEndian.AppendUint64(b, uint64(p.off)), content)
	}
	return parts
}

// piece is a range of a READ: content, or a hole.
type piece struct {
	off, n int64
	data   bool
}

// pieces splits a READ where there are holes that are worth it.
func (s *session) pieces(ctx context.Context, r *request) ([]piece, error) {
	off, end := int64(r.off), int64(r.off)+int64(r.length)
	if s.extents == nil || r.flags&cmdFlagDF != 0 || r.length <= smallestHole {
		return []piece{{off, end - off, true}}, nil
	}
	var out []piece
	for off < end {
		to, data, err := s.extents.NextExtent(ctx, off, end)
		if err != nil {
			return nil, err
		}
		data = data || to-off < smallestHole
		if n := len(out); n > 0 && out[n-1].data == data {
			out[n-1].n += to - off
		} else {
			out = append(out, piece{off, to - off, data})
		}
		off = to
	}
	return out, nil
}

// blockStatus answers with what base:allocation says of a range: at most maxExtents runs of it.
func (s *session) blockStatus(ctx context.Context, r *request) [][]byte {
	type run struct{ n, flags uint32 }
	var runs []run
	off, end := int64(r.off), int64(r.off)+int64(r.length)
	for off < end && len(runs) <= maxExtents {
		to, flags := end, uint32(0)
		if s.extents != nil {
			at, data, err := s.extents.NextExtent(ctx, off, end)
			if err != nil {
				return s.fail(r, err)
			}
			if to = at; !data {
				flags = stateHole | stateZero
			}
		}
		n := len(runs)
		switch {
		case n > 0 && runs[n-1].flags == flags:
			runs[n-1].n += uint32(to - off)
		case n > 0 && r.flags&cmdFlagReqOne != 0, n == maxExtents:
			off = end
			continue
		default:
			runs = append(runs, run{uint32(to - off), flags})
		}
		off = to
	}
	b := chunkHeader(r, chunkBlockStatus, true, uint32(4+8*len(runs)))
	b = binary.BigEndian.AppendUint32(b, baseContext)
	for _, x := range runs {
		b = binary.BigEndian.AppendUint32(b, x.n)
		b = binary.BigEndian.AppendUint32(b, x.flags)
	}
	return [][]byte{b}
}

func simpleReply(r *request, errno uint32) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, simpleLen), simpleMagic)
	b = binary.BigEndian.AppendUint32(b, errno)
	return binary.BigEndian.AppendUint64(b, r.handle)
}

func chunkHeader(r *request, kind uint16, last bool, length uint32) []byte {
	flags := uint16(0)
	if last {
		flags = chunkDone
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, chunkLen+12), chunkMagic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, r.handle)
	return binary.BigEndian.AppendUint32(b, length)
}

// fail answers with what a device's error is on the wire. It is logged here because the client gets
// little more than a number.
func (s *session) fail(r *request, err error) [][]byte {
	errno := errnoOf(err)
	// A fenced device fails every request; powers of two keep that from flooding the log.
	if n := s.failures.Add(1); n&(n-1) == 0 && errno != errNotSup {
		s.log.Error("nbd request error", "export", s.export.Name, "command", r.cmd, "offset", r.off,
			"length", r.length, "kind", string(errs.KindOf(err)), "failures", n, "err", err.Error())
	}
	return s.failure(r, errno, err.Error())
}

func (s *session) failure(r *request, errno uint32, message string) [][]byte {
	if !s.structured || (r.cmd != cmdRead && r.cmd != cmdBlockStatus) {
		return [][]byte{simpleReply(r, errno)}
	}
	message = message[:min(len(message), 512)]
	b := chunkHeader(r, chunkError, true, uint32(6+len(message)))
	b = binary.BigEndian.AppendUint32(b, errno)
	b = binary.BigEndian.AppendUint16(b, uint16(len(message)))
	return [][]byte{append(b, message...)}
}

// errnoOf is the one table from errors to what NBD calls them.
func errnoOf(err error) uint32 {
	if errors.Is(err, errNotFast) {
		return errNotSup
	}
	switch errs.KindOf(err) {
	case errs.Invalid:
		return errInval
	case errs.Exhausted:
		return errNoSpace
	case errs.Fenced:
		return errShutdown
	case errs.Denied:
		return errPerm
	default:
		return errIO
	}
}
