package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// target is where one proxied call goes.
type target struct {
	machine fleet.MachineID
	worker  fleet.WorkerAPI
	url     *url.URL // of the worker's API
	rest    string   // escaped path below the machine
}

type targetKey struct{}

// newProxy forwards what lies below /v1/machines/{ref}/ to the platform of that machine, by way of
// its worker. Streams and upgrades (WebSocket) pass through.
func (a *API) newProxy() http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport:      a.workers,
		FlushInterval:  -1,
		ErrorLog:       slog.NewLogLogger(a.deps.Log.Handler(), slog.LevelDebug),
		Rewrite:        a.rewrite,
		ModifyResponse: translateError,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			writeError(w, proxyError(r, err))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := a.waits.untilStop(r.Context())
		defer cancel()
		t, err := a.locate(ctx, r)
		if err != nil {
			writeError(w, err)
			return
		}
		// A worker that is shut out meanwhile has nothing more to say.
		defer a.deps.Enrolment.OnRefused(t.worker.Worker, t.worker.Term, cancel)()
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, targetKey{}, t)))
	})
}

func (a *API) locate(ctx context.Context, r *http.Request) (target, error) {
	// The caller's own escaping is kept: what is below ports/ belongs to the machine.
	parts := strings.SplitN(r.URL.EscapedPath(), "/", 5) // "", v1, machines, ref, rest
	rest := parts[len(parts)-1]
	if rest == "" {
		return target{}, errs.New(errs.NotFound, "%s names nothing inside the machine", r.URL.Path).
			WithRemedy("leave out the last slash for the machine itself")
	}
	machine, worker, err := a.deps.Locator.WorkerOf(ctx, machineOf(r))
	if err != nil {
		return target{}, err
	}
	u, err := url.Parse(worker.URL)
	if err != nil {
		return target{}, errs.Wrap(errs.Internal, err,
			"worker of machine %s has no usable API address", machine)
	}
	return target{machine: machine, worker: worker, url: u, rest: rest}, nil
}

func (a *API) rewrite(pr *httputil.ProxyRequest) {
	t := targetOf(pr.In)
	pr.SetURL(t.url)
	escaped := strings.TrimSuffix(t.url.EscapedPath(), "/") + "/machines/" + string(t.machine) +
		"/" + t.rest
	pr.Out.URL.RawPath = escaped
	if plain, err := url.PathUnescape(escaped); err == nil {
		pr.Out.URL.Path = plain
	}
	pr.SetXForwarded()
	pr.Out.Header.Del("Authorization") // the caller's is for this server alone
}

func targetOf(r *http.Request) target {
	t, _ := r.Context().Value(targetKey{}).(target)
	return t
}

func proxyError(r *http.Request, err error) error {
	t := targetOf(r)
	var e *errs.Error
	if errors.As(err, &e) {
		return err
	}
	return errs.Wrap(errs.Unavailable, err, "machine %s can't be reached on its worker", t.machine).
		WithRemedy("try again in a second; if it stays so, see: sluice worker list, sluice "+
			"machine status %s", t.machine)
}

const maxErrorBody = 64 << 10

// translateError gives the platform's own errors the form of this API. What a user's program
// answers through ports/ is not touched.
func translateError(resp *http.Response) error {
	t := targetOf(resp.Request)
	ours := resp.Header.Get(guestapi.HeaderError) != "" || !strings.HasPrefix(t.rest, "ports/")
	if resp.StatusCode < http.StatusBadRequest || !ours ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "machine %s broke off its answer", t.machine)
	}
	_ = resp.Body.Close()
	var ge errs.Wire
	if err := json.Unmarshal(body, &ge); err == nil && ge.Kind != "" {
		// The ErrorHandler answers with it.
		return ge.Err()
	}
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	resp.ContentLength = int64(len(body))
	resp.Header.Del("Content-Length")
	return nil
}
