package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/sluice-platform/sluice/internal/disk"
)

const (
	bufferSize   = 64 << 10
	requestCost  = 4 << 10         // bytes that a request is counted for beside its payload
	closingWrite = 5 * time.Second // how long a client may take for an answer while the server ends
)

// session is a connection after its negotiation.
type session struct {
	conn       net.Conn // nil: direct is set
	direct     *direct
	export     *Export
	extents    disk.Extents // nil where the device has none
	structured bool
	meta       bool // BLOCK_STATUS was negotiated
	grace      time.Duration
	limit      int64
	memory     *semaphore.Weighted
	buffers    *bufferPool
	replies    chan *reply
	log        *slog.Logger
	closing    atomic.Bool
	failures   atomic.Uint64
}

func newSession(h *handshake, e *Export) *session {
	cfg := &h.server.cfg
	s := &session{conn: h.conn, export: e, structured: h.structured, grace: cfg.Grace,
		limit:  cfg.ConnMemory,
		meta:   h.structured && h.metaExport == e,
		memory: semaphore.NewWeighted(cfg.ConnMemory), buffers: &h.server.buffers,
		replies: make(chan *reply, maxParallel), log: h.log}
	s.extents, _ = e.Device.(disk.Extents)
	return s
}

// request is what a client asks for. buf is the payload of a WRITE.
type request struct {
	flags, cmd uint16
	handle     uint64
	off        uint64
	length     uint32
	buf        *buffer
	cost       int64
}

// run serves requests until the client leaves or ctx ends. It returns when all of them are
// answered.
func (s *session) run(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() {
		s.closing.Store(true)
		_ = s.conn.SetReadDeadline(time.Now().Add(s.grace))
		// for one that is stuck already
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.grace + closingWrite))
	})
	defer unhook()
	// A request that was begun is finished, so that nobody wonders whether a write has happened.
	// The device bounds how long that takes.
	devCtx := context.WithoutCancel(ctx)
	var writer, workers errgroup.Group
	writer.Go(s.writeReplies)
	workers.SetLimit(maxParallel)
	err := s.readRequests(devCtx, s.conn, &workers)
	_ = workers.Wait() // they report to the client
	close(s.replies)
	if werr := writer.Wait(); err == nil {
		err = werr
	}
	return err
}

func (s *session) readRequests(ctx context.Context, from io.Reader, workers *errgroup.Group) error {
	in := bufio.NewReaderSize(from, bufferSize)
	for {
		r, err := s.nextRequest(ctx, in)
		if err != nil || r == nil {
			return err
		}
		workers.Go(func() error {
			s.serve(ctx, r)
			return nil
		})
	}
}

// nextRequest reads a request that is to be served, payload and all. It is nil when the client says
// that it leaves.
func (s *session) nextRequest(ctx context.Context, in *bufio.Reader) (*request, error) {
	for {
		r, err := readHeader(in)
		if err != nil {
			return nil, err
		}
		if r.cmd == cmdDisc {
			return nil, nil
		}
		refused := s.check(r)
		if r.cmd == cmdWrite && r.length > maxRequest {
			return nil, fmt.Errorf("a write of %d bytes", r.length)
		}
		if r.cmd == cmdWrite && refused != 0 {
			if _, err := io.CopyN(io.Discard, in, int64(r.length)); err != nil {
				return nil, err
			}
		}
		r.cost = s.costOf(r, refused)
		if err := s.memory.Acquire(ctx, r.cost); err != nil {
			return nil, err
		}
		if refused != 0 {
			s.send(r, s.failure(r, refused, "refused"))
			continue
		}
		if r.cmd != cmdWrite {
			return r, nil
		}
		r.buf = s.buffers.get(int(r.length))
		if _, err := io.ReadFull(in, r.buf.data); err != nil {
			r.buf.free()
			s.memory.Release(r.cost)
			return nil, err
		}
		return r, nil
	}
}

func (s *session) serve(ctx context.Context, r *request) {
	began := time.Now()
	answer := s.do(ctx, r)
	if s.direct != nil {
		s.direct.learn(r, time.Since(began))
	}
	s.send(r, answer)
}

func readHeader(in io.Reader) (*request, error) {
	var b [requestLen]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return nil, err
	}
	if m := binary.BigEndian.Uint32(b[:]); m != reqMagic {
		return nil, fmt.Errorf("bad request magic %#x", m)
	}
	return &request{flags: binary.BigEndian.Uint16(b[4:]), cmd: binary.BigEndian.Uint16(b[6:]),
		handle: binary.BigEndian.Uint64(b[8:]), off: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:])}, nil
}

// costOf returns for how many bytes a request counts while it is under way.
func (s *session) costOf(r *request, refused uint32) int64 {
	if refused == 0 && (r.cmd == cmdRead || r.cmd == cmdWrite) {
		return min(int64(r.length)+requestCost, s.limit)
	}
	return requestCost
}

// check returns the errno that a request is refused with before it is looked at any closer, or 0.
func (s *session) check(r *request) uint32 {
	size := uint64(s.export.Device.Size())
	within := r.off <= size && uint64(r.length) <= size-r.off
	allowed, known := allowedFlags(r.cmd, s.structured, s.meta)
	switch {
	case s.closing.Load():
		return errShutdown
	case !known || r.flags&^allowed != 0:
		return errInval
	case r.cmd == cmdFlush:
		if r.off != 0 || r.length != 0 {
			return errInval
		}
		return 0
	case r.cmd != cmdRead && r.cmd != cmdBlockStatus && s.export.ReadOnly:
		return errPerm
	case r.length == 0:
		return errInval
	case !within && (r.cmd == cmdWrite || r.cmd == cmdWriteZeroes):
		return errNoSpace
	case !within:
		return errInval
	case r.cmd == cmdRead && r.length > maxRequest:
		return errInval
	}
	return 0
}

func allowedFlags(cmd uint16, structured, meta bool) (uint16, bool) {
	switch cmd {
	case cmdRead:
		if structured {
			return cmdFlagFUA | cmdFlagDF, true
		}
		return cmdFlagFUA, true
	case cmdWrite, cmdTrim, cmdFlush:
		return cmdFlagFUA, true
	case cmdWriteZeroes:
		return cmdFlagFUA | cmdFlagNoHole | cmdFlagFastZero, true
	case cmdBlockStatus:
		return cmdFlagFUA | cmdFlagReqOne, meta
	}
	return 0, false
}

// reply is an answer on its way: parts are written one after the other, then its memory is given
// back.
type reply struct {
	parts [][]byte
	buf   *buffer
	cost  int64
}

func (s *session) send(r *request, parts [][]byte) {
	answer := &reply{parts: parts, buf: r.buf, cost: r.cost}
	if s.direct == nil {
		s.replies <- answer
		return
	}
	s.direct.write(answer)
	s.done(answer)
}

// done gives back what a request has taken.
func (s *session) done(r *reply) {
	if r.buf != nil {
		r.buf.free()
	}
	s.memory.Release(r.cost)
}

// writeReplies is the only writer of the connection. After an error it goes on to take replies, so
// that nobody waits for it, and hangs up, so that the reader ends too.
func (s *session) writeReplies() error {
	out := bufio.NewWriterSize(s.conn, bufferSize)
	var failed error
	for r := range s.replies {
		if failed == nil {
			if failed = s.writeReply(out, r); failed != nil {
				_ = s.conn.Close()
			}
		}
		s.done(r)
	}
	return failed
}

func (s *session) writeReply(out *bufio.Writer, r *reply) error {
	if s.closing.Load() {
		if err := s.conn.SetWriteDeadline(time.Now().Add(closingWrite)); err != nil {
			return err
		}
	}
	for _, p := range r.parts {
		if _, err := out.Write(p); err != nil {
			return err
		}
	}
	if len(s.replies) > 0 {
		return nil // the next one takes it along
	}
	return out.Flush()
}
