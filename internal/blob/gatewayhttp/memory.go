package gatewayhttp

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	defaultPatience = 30 * time.Second
	dropPatience    = 5 * time.Second
	paceBytes       = 256 << 10 // what must come, or go, within the patience
	// wholeGuess is what is asked for of an object whose size nobody has told: all of nearly every
	// one, such as a full log object.
	wholeGuess = 9 << 20
)

// paced reads the body of one request.
type paced struct {
	h     *handler
	conn  *http.ResponseController
	r     io.Reader
	whole bool // nothing of the body is still to come
}

// read returns the body, which has n bytes. Each piece of it must come in time.
func (p *paced) read(n int64) ([]byte, error) {
	body := make([]byte, n)
	for at := int64(0); at < n; at += paceBytes {
		// Of tests' answers that have no connection there is no deadline either.
		_ = p.conn.SetReadDeadline(time.Now().Add(p.h.patience))
		if _, err := io.ReadFull(p.r, body[at:min(n, at+paceBytes)]); err != nil {
			return nil, errs.Wrap(errs.Unavailable, err, "read the object's body")
		}
	}
	p.whole = true
	// The connection is watched from now on for its end, which must not be the deadline's.
	_ = p.conn.SetReadDeadline(time.Time{})
	return body, nil
}

// refuse has the connection closed after the answer, and nothing more read from it. A short rest is
// read and dropped by the server, in a bounded time: a connection that is closed with it unread is
// reset, and the answer may be lost with it.
func (p *paced) refuse(w http.ResponseWriter, size int64) {
	if size > 0 && size < paceBytes {
		_ = p.conn.SetReadDeadline(time.Now().Add(dropPatience))
		return
	}
	w.Header().Set("Connection", "close")
	_ = p.conn.SetReadDeadline(time.Now())
}

// pacedWriter is the answer of w, each piece of which must go in time.
func (h *handler) pacedWriter(w http.ResponseWriter) io.Writer {
	return &slowly{w: w, conn: http.NewResponseController(w), patience: h.patience}
}

type slowly struct {
	w        io.Writer
	conn     *http.ResponseController
	patience time.Duration
}

func (s *slowly) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.patience))
		var wrote int
		wrote, err = s.w.Write(b[n:min(len(b), n+paceBytes)])
		n += wrote
	}
	return n, err
}

// fetch reads an object, or a range of it, within what may be in memory. free must be called once
// nobody uses what it returned; it does no harm after an error.
func (h *handler) fetch(ctx context.Context, key string, rg blob.Range) (
	o blob.Object, free func(), err error,
) {
	held := int64(0)
	free = func() { h.share.free(held) }
	take := func(n int64) error {
		err := h.share.take(ctx, n)
		if err == nil {
			held += n
		}
		return err
	}
	asked := sizeOf(rg)
	if asked < 0 || asked > wholeGuess {
		asked = wholeGuess
	}
	if err := take(asked); err != nil {
		return o, free, err
	}
	first := rg
	if rg.Offset >= 0 {
		first.Length = asked
	} else {
		first.Offset = max(rg.Offset, -asked)
	}
	if o, err = h.store.Get(ctx, key, first); err != nil {
		return o, free, err
	}
	offset, count, err := rg.Resolve(o.Size)
	if err != nil || count <= int64(len(o.Data)) {
		return o, free, err
	}
	if count > h.maxBody {
		return o, free, errs.New(errs.Invalid, "%d bytes of %s, more than %d at a time", count,
			key, h.maxBody).WithRemedy("read it in ranges")
	}
	// Never more while holding some: who waits so may wait for another who does the same.
	etag := o.ETag
	h.share.free(held)
	held, o.Data = 0, nil
	if err := take(count); err != nil {
		return o, free, err
	}
	if o, err = h.store.Get(ctx, key, blob.Range{Offset: offset, Length: count}); err == nil &&
		o.ETag != etag {
		err = errs.New(errs.Unavailable, "%s was replaced while it was read", key)
	}
	return o, free, err
}

// sizeOf returns how many bytes a range asks for at most; -1: nobody can tell.
func sizeOf(rg blob.Range) int64 {
	switch {
	case rg.Offset < 0:
		return -rg.Offset
	case rg.Length < 0:
		return -1
	}
	return rg.Length
}
