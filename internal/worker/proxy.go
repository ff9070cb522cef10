package worker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// proxied is the destination of one call.
type proxied struct {
	machine fleet.MachineID
	vm      *pool.VM
	rest    string // escaped path below the machine
}

type proxiedKey struct{}

// proxy hands calls for a machine to the platform in its VM, with the VM's own token in place of
// the worker's. Streams and upgrades pass through.
func (w *Worker) proxy() http.Handler {
	reverse := &httputil.ReverseProxy{
		Transport:     vmTransport{},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			p := proxiedOf(pr.In)
			escaped := guestapi.PathMachine + p.rest
			pr.Out.URL.Scheme, pr.Out.URL.Host, pr.Out.Host = "http", "vm", "vm"
			pr.Out.URL.Path, pr.Out.URL.RawPath = escaped, escaped
			if plain, err := url.PathUnescape(escaped); err == nil {
				pr.Out.URL.Path = plain
			}
			pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
			pr.Out.Header["X-Forwarded-Host"] = pr.In.Header["X-Forwarded-Host"]
			pr.Out.Header["X-Forwarded-Proto"] = pr.In.Header["X-Forwarded-Proto"]
			pr.Out.Header.Set("Authorization", "Bearer "+p.vm.Guest.Token())
		},
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) {
			var known *errs.Error
			if !errors.As(err, &known) {
				err = errs.Wrap(errs.Unavailable, err, "the platform of machine %s doesn't answer",
					proxiedOf(r).machine).
					WithRemedy("try again; if it stays so, see: sluice machine status %s",
						proxiedOf(r).machine)
			}
			writeError(rw, err)
		},
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		id := fleet.MachineID(r.PathValue("machine"))
		vm, err := w.runningVM(r.Context(), id)
		if err != nil {
			writeError(rw, err)
			return
		}
		parts := strings.SplitN(r.URL.EscapedPath(), "/", 4) // "", machines, id, rest
		p := proxied{machine: id, vm: vm, rest: parts[len(parts)-1]}
		reverse.ServeHTTP(rw, r.WithContext(context.WithValue(r.Context(), proxiedKey{}, p)))
	})
}

// lookWithin is how long a call waits for a worker that has just been started to have looked at
// what it has. The server doesn't know of its restart, and has no reason to hold the call back.
const lookWithin = 5 * time.Second

// runningVM returns the VM in which a machine runs. NotFound: the machine isn't on this worker;
// Unavailable: it isn't running now, or the worker doesn't know yet.
func (w *Worker) runningVM(ctx context.Context, id fleet.MachineID) (*pool.VM, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	for {
		vm, known, err := w.findVM(id)
		if known || backoff.Sleep(ctx, 5*time.Millisecond) != nil {
			return vm, err
		}
	}
}

// findVM does what runningVM does, without waiting; known: that is what it comes to.
func (w *Worker) findVM(id fleet.MachineID) (_ *pool.VM, known bool, _ error) {
	adopted := w.adopted.Load() // before: with it, all that was found is there
	w.mu.Lock()
	m := w.machines[id]
	w.mu.Unlock()
	if m == nil && adopted {
		return nil, true, errs.New(errs.NotFound, "machine %s is not on worker %s", id,
			w.cfg.Worker).
			WithRemedy("ask the server where it is: sluice machine status %s", id)
	}
	var phase fleet.Phase
	if m != nil {
		var vm *pool.VM
		var stale bool
		if vm, phase, stale = m.vmOf(); vm != nil {
			return vm, true, nil
		}
		known = !stale
	}
	return nil, known, errs.New(errs.Unavailable, "machine %s is not running on worker %s now (%s)",
		id, w.cfg.Worker, cmp.Or(phase, "not looked at yet")).
		WithRemedy("try again in a moment, or see: sluice machine status %s", id)
}

func proxiedOf(r *http.Request) proxied {
	p, _ := r.Context().Value(proxiedKey{}).(proxied)
	return p
}

// vmTransport sends each request over the connections of its own VM.
type vmTransport struct{}

func (vmTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return proxiedOf(r).vm.Guest.Transport().RoundTrip(r)
}
