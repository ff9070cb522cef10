package machine

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// anyPorts passes a request on to a port of the machine, WebSockets included.
func (p *Platform) anyPorts(w http.ResponseWriter, r *http.Request) {
	c, b, err := p.live()
	if err != nil {
		writeError(w, err)
		return
	}
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || port == 0 {
		writeError(w, errs.New(errs.Invalid, "%q is not a port", r.PathValue("port")))
		return
	}
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return c.DialPort(ctx, b.Address, uint16(port))
		}}
	prefix := guestapi.PathMachine + "ports/" + r.PathValue("port")
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // streams are passed on as they come
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "http",
				Host: net.JoinHostPort("localhost", strconv.FormatUint(port, 10))})
			pr.Out.URL.Path = "/" + strings.TrimPrefix(strings.TrimPrefix(pr.In.URL.Path, prefix),
				"/")
			pr.Out.URL.RawPath = ""
			// user code must not see the platform's token
			pr.Out.Header.Del("Authorization")
			if forwarded := pr.In.Header.Get("X-Forwarded-Host"); forwarded != "" {
				pr.Out.Host = forwarded
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request,
			err error) {
			writeError(w, unreachable(err))
		},
	}
	proxy.ServeHTTP(w, r)
}

// unreachable returns an error that has a kind as it is, and blames the service for any other.
func unreachable(err error) error {
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return errs.Wrap(errs.Unavailable, err, "the machine's service broke off")
}
