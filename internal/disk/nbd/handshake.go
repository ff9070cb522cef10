package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
)

// handshake is a negotiation. What it has agreed on so far is forgotten when TLS begins.
type handshake struct {
	server     *Server
	conn       net.Conn
	log        *slog.Logger
	noZeroes   bool
	secure     bool
	structured bool
	metaExport *Export // for which base:allocation was chosen
}

// run negotiates. It returns nil without an error when the client leaves in peace.
func (h *handshake) run(ctx context.Context) (*session, error) {
	hello := binary.BigEndian.AppendUint64(nil, initMagic)
	hello = binary.BigEndian.AppendUint64(hello, optMagic)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := h.conn.Write(hello); err != nil {
		return nil, err
	}
	var flags [4]byte
	if _, err := io.ReadFull(h.conn, flags[:]); err != nil {
		return nil, err
	}
	f := binary.BigEndian.Uint32(flags[:])
	if f&^(flagFixedNewstyle|flagNoZeroes) != 0 || f&flagFixedNewstyle == 0 {
		return nil, fmt.Errorf("client flags %#x are not understood", f)
	}
	h.noZeroes = f&flagNoZeroes != 0
	for range maxOptions {
		s, done, err := h.option(ctx)
		if done || err != nil {
			return s, err
		}
	}
	return nil, fmt.Errorf("more than %d options", maxOptions)
}

// option reads and answers one option. done ends the negotiation.
func (h *handshake) option(ctx context.Context) (_ *session, done bool, _ error) {
	var head [16]byte
	if _, err := io.ReadFull(h.conn, head[:]); err != nil {
		return nil, true, err
	}
	if binary.BigEndian.Uint64(head[:]) != optMagic {
		return nil, true, fmt.Errorf("bad option magic")
	}
	opt, n := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
	if n > maxOption {
		if _, err := io.CopyN(io.Discard, h.conn, int64(n)); err != nil {
			return nil, true, err
		}
		return nil, opt == optExportName, h.reply(opt, repErrTooBig, []byte("option is too long"))
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(h.conn, data); err != nil {
		return nil, true, err
	}
	if h.server.cfg.TLS != nil && !h.secure {
		return nil, opt == optAbort || opt == optExportName, h.insecure(ctx, opt, data)
	}
	switch opt {
	case optExportName:
		s, err := h.exportName(string(data))
		return s, true, err
	case optAbort:
		return nil, true, h.reply(opt, repAck, nil)
	case optInfo, optGo:
		s, err := h.info(opt, data)
		return s, s != nil, err
	}
	return nil, false, h.query(opt, data)
}

// insecure answers an option before TLS, where TLS is a must.
func (h *handshake) insecure(ctx context.Context, opt uint32, data []byte) error {
	switch {
	case opt == optAbort:
		return h.reply(opt, repAck, nil)
	case opt == optExportName:
		return fmt.Errorf("client asks for an export without TLS")
	case opt != optStartTLS:
		return h.reply(opt, repErrTLSReqd, []byte("this server needs TLS"))
	case len(data) > 0:
		return h.reply(opt, repErrInvalid, nil)
	}
	if err := h.reply(opt, repAck, nil); err != nil {
		return err
	}
	c := tls.Server(h.conn, h.server.cfg.TLS)
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	h.conn, h.secure = c, true
	h.structured, h.metaExport = false, nil
	return nil
}

// query answers the options that don't end a negotiation.
func (h *handshake) query(opt uint32, data []byte) error {
	switch opt {
	case optList:
		if len(data) > 0 {
			return h.reply(opt, repErrInvalid, nil)
		}
		for _, e := range h.server.cfg.Exports {
			if err := h.reply(opt, repServer,
				append(appendString(nil, e.Name), e.Description...)); err != nil {
				return err
			}
		}
		return h.reply(opt, repAck, nil)
	case optStructuredReply:
		if len(data) > 0 {
			return h.reply(opt, repErrInvalid, nil)
		}
		h.structured = true
		return h.reply(opt, repAck, nil)
	case optListMeta, optSetMeta:
		return h.meta(opt, data)
	default: // STARTTLS too, where it isn't configured or was done
		return h.reply(opt, repErrUnsup, nil)
	}
}

// exportName is the old way to begin, which has no way to refuse but to hang up.
func (h *handshake) exportName(name string) (*session, error) {
	e := h.server.find(name)
	if e == nil {
		return nil, fmt.Errorf("client asks for export %q, which is not there", name)
	}
	out := binary.BigEndian.AppendUint64(nil, uint64(e.Device.Size()))
	out = binary.BigEndian.AppendUint16(out, e.flags())
	if !h.noZeroes {
		out = append(out, make([]byte, 124)...)
	}
	if _, err := h.conn.Write(out); err != nil {
		return nil, err
	}
	return h.session(e), nil
}

// info answers INFO and GO; the latter begins a session.
func (h *handshake) info(opt uint32, data []byte) (*session, error) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		return nil, h.reply(opt, repErrInvalid, []byte("malformed"))
	}
	e := h.server.find(name)
	if e == nil {
		return nil, h.reply(opt, repErrUnknown, fmt.Appendf(nil, "there is no export %q", name))
	}
	// the sizes bind us also where they weren't asked for
	answers := [][]byte{exportInfo(e), blockSizeInfo()}
	for rest = rest[2:]; len(rest) > 0; rest = rest[2:] {
		switch binary.BigEndian.Uint16(rest) {
		case infoName:
			answers = append(answers, append([]byte{0, infoName}, e.Name...))
		case infoDescription:
			if e.Description != "" {
				answers = append(answers, append([]byte{0, infoDescription}, e.Description...))
			}
		}
	}
	for _, a := range answers {
		if err := h.reply(opt, repInfo, a); err != nil {
			return nil, err
		}
	}
	if err := h.reply(opt, repAck, nil); err != nil || opt == optInfo {
		return nil, err
	}
	return h.session(e), nil
}

func exportInfo(e *Export) []byte {
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Device.Size()))
	return binary.BigEndian.AppendUint16(b, e.flags())
}

func blockSizeInfo() []byte {
	b := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, preferredSize)
	return binary.BigEndian.AppendUint32(b, maxRequest)
}

// meta answers LIST and SET_META_CONTEXT. There is one context, for devices that know their
// extents.
func (h *handshake) meta(opt uint32, data []byte) error {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 4 || !h.structured {
		return h.reply(opt, repErrInvalid, []byte("malformed, or without structured replies"))
	}
	if opt == optSetMeta {
		h.metaExport = nil
	}
	queries := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	found := opt == optListMeta && queries == 0
	for range queries {
		var q string
		if q, rest, ok = cutString(rest); !ok {
			return h.reply(opt, repErrInvalid, []byte("malformed query"))
		}
		found = found || q == baseAllocation || opt == optListMeta && q == baseNamespace
	}
	if len(rest) > 0 {
		return h.reply(opt, repErrInvalid, nil)
	}
	e := h.server.find(name)
	if e == nil {
		return h.reply(opt, repErrUnknown, fmt.Appendf(nil, "there is no export %q", name))
	}
	if found {
		id := uint32(0)
		if opt == optSetMeta {
			id, h.metaExport = baseContext, e
		}
		if err := h.reply(opt, repMetaContext,
			append(binary.BigEndian.AppendUint32(nil, id), baseAllocation...)); err != nil {
			return err
		}
	}
	return h.reply(opt, repAck, nil)
}

func (h *handshake) session(e *Export) *session {
	return newSession(h, e)
}

func (h *handshake) reply(opt, kind uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, repMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := h.conn.Write(append(b, data...))
	return err
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// cutString takes a string with its length before it off the front of b.
func cutString(b []byte) (string, []byte, bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxName || uint64(n) > uint64(len(b)-4) || bytes.IndexByte(b[4:4+n], 0) >= 0 {
		return "", nil, false
	}
	return string(b[4 : 4+n]), b[4+n:], true
}
