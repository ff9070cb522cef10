package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// watchDrain streams a drain as server-sent events: its state at once, then at each change, and
// last its final state. A comment each Heartbeat tells a silent stream from a dead one. Every event
// is the whole drain, so that a watcher who was cut off just begins again.
func (c drainCalls) watchDrain(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := c.waits.untilStop(r.Context())
	defer cancel()
	id := fleet.DrainID(r.PathValue("id"))
	changed := c.waits.changes.Changed()
	v, err := c.drains.Drain(ctx, id)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	beat := time.NewTicker(c.waits.heartbeat)
	defer beat.Stop()
	reread := time.NewTicker(rereadEvery)
	defer reread.Stop()
	var sent []byte
	for {
		if sent, err = sendDrain(w, out, v, sent); err != nil || v.Drain.State.Final() {
			return
		}
		select {
		case <-changed:
		case <-reread.C:
		case <-beat.C:
			if _, err := w.Write([]byte(": still here\n\n")); err != nil || out.Flush() != nil {
				return
			}
			continue
		case <-ctx.Done():
			if why := context.Cause(ctx); errs.Is(why, errs.Denied) {
				_, _ = w.Write([]byte(": " + why.Error() + "\n\n"))
			}
			return
		}
		changed = c.waits.changes.Changed()
		// An error ends the stream without a final state; the watcher asks again and is told.
		if v, err = c.drains.Drain(ctx, id); err != nil {
			return
		}
	}
}

// sendDrain writes one event unless it says what the last one said.
func sendDrain(w http.ResponseWriter, out *http.ResponseController, v fleet.DrainView,
	last []byte) ([]byte, error) {
	data, err := json.Marshal(drainToAPI(v))
	if err != nil || bytes.Equal(data, last) {
		return last, err
	}
	var event bytes.Buffer
	event.WriteString("event: drain\ndata: ")
	event.Write(data)
	event.WriteString("\n\n")
	if _, err := w.Write(event.Bytes()); err != nil {
		return last, err
	}
	return data, out.Flush()
}
