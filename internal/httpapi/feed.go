package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// feedCalls are the calls of workers. Unknown fields are ignored, because a worker may be of a
// newer release.
type feedCalls struct {
	feed  fleet.WorkerFeed
	waits waits
}

func (c feedCalls) join(w http.ResponseWriter, r *http.Request) {
	var req fleet.JoinRequest
	if err := decode(w, r, maxBody, jsonhttp.Lenient, &req); err != nil {
		writeError(w, err)
		return
	}
	if who := peerOf(r); req.Worker != who {
		writeError(w, otherWorker(who, string(req.Worker)))
		return
	}
	answer, err := c.feed.Join(r.Context(), req)
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, answer)
}

// assignments is a long poll: it answers when there is news, and with the present set when there is
// none.
func (c feedCalls) assignments(w http.ResponseWriter, r *http.Request) {
	after := int64(0)
	if s := r.URL.Query().Get("after"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			writeError(w, errs.New(errs.Invalid, "after %q is not a revision", s))
			return
		}
		after = n
	}
	ctx, cancel := c.waits.untilStop(r.Context())
	defer cancel()
	ctx, cancelPoll := context.WithTimeout(ctx, c.waits.longPoll)
	defer cancelPoll()
	set, err := c.feed.Assignments(ctx, fleet.WorkerID(r.PathValue("id")), after)
	if cause := context.Cause(r.Context()); errs.Is(cause, errs.Denied) {
		err = cause // it was shut out meanwhile
	}
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, set)
}

func (c feedCalls) report(w http.ResponseWriter, r *http.Request) {
	var report fleet.WorkerReport
	if err := decode(w, r, maxReportBody, jsonhttp.Lenient, &report); err != nil {
		writeError(w, err)
		return
	}
	if id := fleet.WorkerID(r.PathValue("id")); report.Worker != id {
		writeError(w, errs.New(errs.Invalid, "worker %q reports for worker %q", id, report.Worker))
		return
	}
	if err := c.feed.Report(r.Context(), report); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
