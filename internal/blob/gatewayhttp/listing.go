package gatewayhttp

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/sluice-platform/sluice/internal/blob"
)

const listBuffer = 64 << 10

// ListLine is one line of a listing: an entry, or what ends it. A listing without an end was cut.
type ListLine struct {
	Key   string     `json:"key,omitempty"`
	Size  int64      `json:"size,omitempty"`
	End   bool       `json:"end,omitempty"`
	Error *ErrorBody `json:"error,omitempty"`
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	prefix := query.Get("prefix")
	if err := h.auth.Authorize(r, OpList, prefix, 0); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(h.pacedWriter(w), listBuffer)
	out := json.NewEncoder(buffered)
	var writeErr error
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
	}
	err := h.store.List(r.Context(), prefix, query.Get("after"), func(e blob.Entry) bool {
		begin()
		writeErr = out.Encode(ListLine{Key: e.Key, Size: e.Size})
		return writeErr == nil
	})
	if err != nil && !begun {
		return err // with its own status: nothing of the listing has been sent
	}
	begin()
	last := ListLine{End: true}
	if err != nil {
		last = ListLine{Error: errorBody(err)}
	}
	if writeErr == nil {
		writeErr = errors.Join(out.Encode(last), buffered.Flush())
	}
	_ = writeErr // a client that is gone needs no answer
	return nil
}
