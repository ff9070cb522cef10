package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Mark is a place in the chain: an object's number and hash, and the number of its last entry. The
// zero Mark is before the first.
type Mark struct {
	Number int64  `json:"number"`
	Hash   string `json:"hash"`
	Seq    int64  `json:"seq"`
	// Batch tells which segment of the spool became that object: one that a crash has left behind
	// is not made another.
	Batch string `json:"batch,omitempty"`
}

// header is the first line of an object; its entries are the others.
type header struct {
	Format int    `json:"format"`
	Fleet  string `json:"fleet"`
	Number int64  `json:"number"`
	Before string `json:"before"` // hash of the object before it; "": it is the first
	First  int64  `json:"first"`  // number of the first entry
	Count  int    `json:"count"`
}

const (
	chainFormat = 1
	maxObject   = 64 << 20
	headKey     = "audit/head"
)

// chain is the objects of one fleet.
type chain struct {
	store blob.Store
	state state.Store
	fleet string
}

// prefix: no part of it can be taken for a part of a disk, whatever the fleet is called.
func (c *chain) prefix() string { return "audit/" + url.PathEscape(c.fleet) + "/chain/" }

func (c *chain) key(number int64) string { return fmt.Sprintf("%s%020d", c.prefix(), number) }

func (c *chain) numberOf(key string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimPrefix(key, c.prefix()), 10, 64)
	return n, err == nil && c.key(n) == key
}

// head returns the newest mark that was kept.
func (c *chain) head(ctx context.Context) (Mark, error) {
	var m Mark
	kv, err := c.state.Get(ctx, headKey)
	if errs.Is(err, errs.NotFound) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(kv.Value, &m)
	}
	if err != nil {
		return m, errs.Wrap(errs.KindOf(err), err, "read how far the audit log is")
	}
	return m, nil
}

func (c *chain) keepHead(ctx context.Context, m Mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode how far the audit log is")
	}
	_, err = c.state.Commit(ctx, state.Txn{Then: []state.Op{{Key: headKey, Value: raw}}})
	return err
}

// object is what follows a mark: the same bytes for the same entries, whoever makes it.
func (c *chain) object(after Mark, entries []Entry) ([]byte, Mark, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	h := header{Format: chainFormat, Fleet: c.fleet, Number: after.Number + 1, Before: after.Hash,
		First: after.Seq + 1, Count: len(entries)}
	err := enc.Encode(h)
	for i, e := range entries {
		e.Seq = h.First + int64(i)
		if err == nil {
			err = enc.Encode(e)
		}
	}
	if err != nil {
		return nil, Mark{}, errs.Wrap(errs.Internal, err, "encode the audit log")
	}
	return out.Bytes(), Mark{Number: h.Number, Hash: hashOf(out.Bytes()),
		Seq: after.Seq + int64(len(entries))}, nil
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// extend writes entries as the object after a mark, and returns the new mark. An object of another
// content that is there already stays, and the entries come after it: it is of this server before
// its state was restored from an older snapshot, or somebody else's, which verify tells.
func (c *chain) extend(ctx context.Context, after Mark, entries []Entry) (Mark, error) {
	for {
		data, next, err := c.object(after, entries)
		if err != nil {
			return after, err
		}
		_, err = c.store.PutIfAbsent(ctx, c.key(next.Number), data)
		if err == nil {
			return next, nil
		}
		if !errs.Is(err, errs.Conflict) {
			return after, err
		}
		there, err := c.get(ctx, next.Number)
		if err != nil {
			return after, err
		}
		if bytes.Equal(there, data) {
			return next, nil // written before, by who didn't learn of it
		}
		after = c.markOf(next.Number, there, after)
	}
}

// markOf returns the mark of an object, whatever is in it.
func (c *chain) markOf(number int64, data []byte, before Mark) Mark {
	m := Mark{Number: number, Hash: hashOf(data), Seq: before.Seq}
	if h, entries, err := parse(data); err == nil {
		m.Seq = h.First + int64(len(entries)) - 1
	}
	return m
}

func (c *chain) get(ctx context.Context, number int64) ([]byte, error) {
	obj, err := c.store.Get(ctx, c.key(number), blob.Range{Offset: 0, Length: maxObject})
	if err != nil {
		return nil, err
	}
	return obj.Data, nil
}

// parse takes an object apart. Corrupt: it isn't what was written.
func parse(data []byte) (header, []Entry, error) {
	var h header
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if err := json.Unmarshal(lines[0], &h); err != nil {
		return h, nil, errs.Wrap(errs.Corrupt, err, "its first line can't be read")
	}
	entries := make([]Entry, len(lines)-1)
	for i, text := range lines[1:] {
		if err := json.Unmarshal(text, &entries[i]); err != nil {
			return h, nil, errs.Wrap(errs.Corrupt, err, "entry %d of it can't be read", i+1)
		}
	}
	if h.Format != chainFormat {
		return h, nil, errs.New(errs.Unsupported, "it has format %d; this release knows %d",
			h.Format, chainFormat)
	}
	if h.Count != len(entries) {
		return h, nil, errs.New(errs.Corrupt, "it has %d entries, and should have %d",
			len(entries), h.Count)
	}
	return h, entries, nil
}
