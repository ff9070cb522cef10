package storekey

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/s3blob"
)

// keepFor is how long credentials without an end are kept after the daemon's last word with the
// server.
const keepFor = 24 * time.Hour

// keptKey is a key as it is kept. It is never printed: it goes from JSON to the kernel and back.
type keptKey struct {
	AccessKey    string    `json:"access_key"`
	SecretKey    string    `json:"secret_key"`
	SessionToken string    `json:"session_token,omitempty"`
	Generation   int64     `json:"generation"`
	Due          time.Time `json:"due,omitzero"`
	Late         time.Time `json:"late,omitzero"`
	Expires      time.Time `json:"expires,omitzero"`
}

// keep has what is held outlive the daemon: one that is started again while the server is away has
// its machines' disks to serve. The host's own credentials aren't kept.
func (h *Holder) keep(ctx context.Context, held held) {
	if h.cfg.Kept == nil {
		return
	}
	if held.key.AccessKey == "" {
		h.forget(ctx)
		return
	}
	b, err := json.Marshal(keptKey{held.key.AccessKey, held.key.SecretKey, held.key.SessionToken,
		held.generation, held.due, held.late, held.expires})
	ttl := keepFor
	if !held.expires.IsZero() {
		ttl = time.Until(held.expires)
	}
	if err == nil && ttl > 0 {
		err = h.cfg.Kept.Keep(b, ttl)
	}
	if err != nil {
		h.cfg.Log.DebugContext(ctx, "credentials of the store don't outlive this process",
			"error", err)
	}
}

func (h *Holder) forget(ctx context.Context) {
	if h.cfg.Kept == nil {
		return
	}
	if err := h.cfg.Kept.Forget(); err != nil {
		h.cfg.Log.WarnContext(ctx, "credentials of the store could not be taken out of the kernel's "+
			"keyring", "error", err)
	}
}

// recall takes what the daemon before this one has kept. The server is asked for newer ones at
// once.
func (h *Holder) recall() {
	if h.cfg.Kept == nil {
		return
	}
	b, err := h.cfg.Kept.Recall()
	if err != nil {
		return // there is none, or the kernel has no keyrings: the server is asked
	}
	var k keptKey
	if json.Unmarshal(b, &k) != nil || k.AccessKey == "" {
		return
	}
	h.held = held{generation: k.Generation, kept: true,
		ends: ends{due: k.Due, late: k.Late, expires: k.Expires},
		key: s3blob.Key{AccessKey: k.AccessKey, SecretKey: k.SecretKey,
			SessionToken: k.SessionToken, Expires: k.Expires}}
}
