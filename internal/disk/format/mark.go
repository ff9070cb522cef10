package format

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	markMagic  = "SLUIMARK"
	markFixed  = 16      // magic, version (2), flags (2), number of chunks (4)
	chunkFixed = 12      // raw length (4), stored length (4), CRC of the stored bytes (4)
	markChunk  = 1 << 20 // bytes of a chunk before compression
	rawChunk   = 4 << 10 // a shorter chunk is stored as it is
	markKeys   = 4096    // keys in one line
)

// Mark is what one reading of a whole pool by a collector found unreachable. What a second one
// finds so too, a grace later, may be deleted.
type Mark struct {
	Created time.Time // when the reading began, by the collector's clock
	// Documents has the keys of the heads, checkpoints, references and pins that there were, and
	// the nonce of each pin.
	Documents map[string]string
	Disks     []MarkedDisk
}

// MarkedDisk is the garbage of one disk.
type MarkedDisk struct {
	Path string `json:"path"`
	// of the disk that had the path; empty: it has no head any more
	UID     string   `json:"uid,omitempty"`
	Garbage []string `json:"garbage"` // keys, below the path
}

type markHeader struct {
	Version   int               `json:"version"`
	Created   time.Time         `json:"created"`
	Documents map[string]string `json:"pins"` // there were only pins once
}

// EncodeMark returns the stored form of a mark: JSON lines, a header and then disks, in chunks.
func (c *Codec) EncodeMark(m *Mark) ([]byte, error) {
	out := append(make([]byte, 0, markFixed), markMagic...)
	out = le.AppendUint32(out, Version) // and no flags
	out = le.AppendUint32(out, 0)
	chunks := uint32(0)
	var raw bytes.Buffer
	flush := func() {
		stored := raw.Bytes()
		if len(stored) >= rawChunk {
			stored = c.enc.EncodeAll(stored, nil)
		}
		out = le.AppendUint32(out, uint32(raw.Len()))
		out = le.AppendUint32(out, uint32(len(stored)))
		out = append(le.AppendUint32(out, CRC(stored)), stored...)
		raw.Reset()
		chunks++
	}
	enc := json.NewEncoder(&raw)
	if err := enc.Encode(markHeader{Version, m.Created, m.Documents}); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode a mark")
	}
	for _, d := range m.Disks {
		for len(d.Garbage) > 0 {
			n := min(len(d.Garbage), markKeys)
			if err := enc.Encode(MarkedDisk{d.Path, d.UID, d.Garbage[:n]}); err != nil {
				return nil, errs.Wrap(errs.Internal, err, "encode a mark")
			}
			if d.Garbage = d.Garbage[n:]; raw.Len() >= markChunk {
				flush()
			}
		}
	}
	if raw.Len() > 0 {
		flush()
	}
	le.PutUint32(out[12:], chunks)
	return out, nil
}

// DecodeMark checks and decodes a mark. The lines of one disk are put together.
func (c *Codec) DecodeMark(b []byte) (*Mark, error) {
	if len(b) < markFixed || string(b[:8]) != markMagic {
		return nil, corrupt("not a mark")
	}
	if v := le.Uint32(b[8:]); v != Version {
		return nil, unsupported("mark of format version and flags %#x", v)
	}
	chunks := le.Uint32(b[12:])
	b = b[markFixed:]
	m := &Mark{}
	first := true
	for ; chunks > 0; chunks-- {
		raw, rest, err := c.markChunk(b)
		if err != nil {
			return nil, err
		}
		b = rest
		for line := range bytes.Lines(raw) {
			if err := m.line(line, first); err != nil {
				return nil, err
			}
			first = false
		}
	}
	if len(b) != 0 || first {
		return nil, corrupt("mark: %d bytes after its chunks, or no header", len(b))
	}
	return m, nil
}

// markChunk returns the content of the first chunk, and what follows it.
func (c *Codec) markChunk(b []byte) (raw, rest []byte, err error) {
	if len(b) < chunkFixed {
		return nil, nil, corrupt("mark is cut")
	}
	rawLen, n, sum := le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])
	if b = b[chunkFixed:]; uint64(n) > uint64(len(b)) || rawLen > maxRootContents {
		return nil, nil, corrupt("mark: chunk of %d bytes, stored as %d", rawLen, n)
	}
	if CRC(b[:n]) != sum {
		return nil, nil, corrupt("mark: checksum mismatch")
	}
	raw, err = c.unpack(nil, b[:n], rawLen >= rawChunk, int(rawLen), maxRootContents)
	return raw, b[n:], err
}

func (m *Mark) line(line []byte, first bool) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if first {
		var h markHeader
		if err := d.Decode(&h); err != nil {
			return errs.Wrap(errs.Corrupt, err, "decode mark")
		}
		if h.Version != Version {
			return unsupported("mark of version %d", h.Version)
		}
		m.Created, m.Documents = h.Created, h.Documents
		return nil
	}
	var x MarkedDisk
	if err := d.Decode(&x); err != nil {
		return errs.Wrap(errs.Corrupt, err, "decode mark")
	}
	if n := len(m.Disks); n > 0 && m.Disks[n-1].Path == x.Path && m.Disks[n-1].UID == x.UID {
		m.Disks[n-1].Garbage = append(m.Disks[n-1].Garbage, x.Garbage...)
		return nil
	}
	if !ValidPath(x.Path) {
		return corrupt("mark: bad path %q", x.Path)
	}
	m.Disks = append(m.Disks, x)
	return nil
}
