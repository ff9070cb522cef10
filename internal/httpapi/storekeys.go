package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// storeCalls are the calls about the store's credentials.
type storeCalls struct {
	keys    fleet.StoreKeys // nil: workers have their own
	workers fleet.Workers
	waits   waits
}

// give is a long poll of a worker: it answers when there are others than those that it has.
func (c storeCalls) give(w http.ResponseWriter, r *http.Request) {
	have := int64(0)
	if s := r.URL.Query().Get("have"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			writeError(w, errs.New(errs.Invalid, "have %q is not a generation", s))
			return
		}
		have = n
	}
	if c.keys == nil {
		writeError(w, errs.New(errs.NotFound, "this server gives workers no credentials"))
		return
	}
	ctx, cancel := c.waits.untilStop(r.Context())
	defer cancel()
	ctx, cancelPoll := context.WithTimeout(ctx, c.waits.longPoll)
	defer cancelPoll()
	credentials, err := c.keys.StoreCredentials(ctx, fleet.WorkerID(r.PathValue("id")), have)
	if cause := context.Cause(r.Context()); errs.Is(cause, errs.Denied) {
		err = cause // it was shut out meanwhile, and gets none
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	jsonhttp.Write(w, http.StatusOK, credentials)
}

// show says which credentials the server has, and which the workers have heard of.
func (c storeCalls) show(w http.ResponseWriter, r *http.Request) {
	if c.keys == nil {
		writeError(w, errs.New(errs.NotFound, "this server gives workers no credentials"))
		return
	}
	views, err := c.workers.Workers(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, storeKeysToAPI(c.keys.StoreKeys(), views))
}

func storeKeysToAPI(v fleet.StoreKeyView, workers []fleet.WorkerView) api.StoreCredentials {
	out := api.StoreCredentials{Needed: v.Needed, Source: v.Source, Role: v.Role,
		Withheld: v.Withheld, Generation: v.Generation, KeyID: v.KeyID, Since: v.Since,
		Expires: v.Expires, Trouble: v.Trouble, Workers: []api.WorkerStoreCredentials{}}
	waits := false
	for _, w := range workers {
		of := workerStoreKeys(v, w, time.Now())
		waits = waits || of.State == api.StoreCredentialsOlder ||
			of.State == api.StoreCredentialsUnknown
		out.Workers = append(out.Workers, of)
	}
	out.Settled = v.Needed && v.Trouble == "" && !waits
	return out
}

// workerStoreKeys says how far a worker is. Of one that is silent the last report counts: what it
// had then it may have yet.
func workerStoreKeys(v fleet.StoreKeyView, w fleet.WorkerView,
	now time.Time) api.WorkerStoreCredentials {
	of := api.WorkerStoreCredentials{Worker: string(w.Worker.ID), Liveness: w.Liveness,
		State: api.StoreCredentialsUnknown}
	if w.Report != nil && w.Report.StoreKey != nil {
		k := w.Report.StoreKey
		of.Generation, of.KeyID, of.Expires, of.Kept = k.Generation, k.KeyID, k.Expires, k.Kept
		switch {
		case k.Source == fleet.StoreKeyOwn:
			of.State = api.StoreCredentialsOwn
		case k.Generation == v.Generation:
			of.State = api.StoreCredentialsCurrent
		case !k.Expires.IsZero() && now.After(k.Expires):
			of.State = api.StoreCredentialsExpired
		default:
			of.State = api.StoreCredentialsOlder
		}
	}
	switch {
	case !w.RevokedAt.IsZero():
		of.State = api.StoreCredentialsRevoked
	case !v.Needed:
		of.State = api.StoreCredentialsNone
	}
	return of
}
