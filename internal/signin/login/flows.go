package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// patience is how long somebody has to sign in.
const patience = 10 * time.Minute

// Browser has somebody sign in with a browser on this host: show gets the URL to open, and the
// issuer leads the browser back to a port of loopback; 0: any that is free. The code is of no use
// to who may see it (PKCE), and what comes back must be what was begun (state, nonce).
func Browser(ctx context.Context, o signin.Offer, port int,
	show func(ctx context.Context, url string) error) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := ask(ctx, o)
	if err != nil {
		return Tokens{}, err
	}
	listeners, port, err := listen(ctx, port)
	if err != nil {
		return Tokens{}, err
	}
	a.config.RedirectURL = "http://localhost:" + strconv.Itoa(port) + callbackPath
	verifier, nonce := oauth2.GenerateVerifier(), rand.Text()
	back := &callback{state: rand.Text(), issuer: o.Issuer, came: make(chan answer, 1)}
	url := a.config.AuthCodeURL(back.state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))
	came, err := back.wait(ctx, listeners,
		func(ctx context.Context) error { return show(ctx, url) })
	if err != nil {
		return Tokens{}, err
	}
	t, err := a.config.Exchange(a.context(ctx), came.code, oauth2.VerifierOption(verifier))
	if err != nil {
		return Tokens{}, a.refused(ctx, err, "sign in")
	}
	return a.read(ctx, t, nonce)
}

// Device has somebody sign in with a browser on any host: show gets the URL to open there, and the
// code to enter.
func Device(ctx context.Context, o signin.Offer,
	show func(url, code string) error) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := ask(ctx, o)
	if err != nil {
		return Tokens{}, err
	}
	if signin.CheckURL(a.config.Endpoint.DeviceAuthURL) != nil {
		return Tokens{}, errs.New(errs.Unsupported, "issuer %s has no sign-in by device",
			o.Issuer).WithRemedy("sluice login, on a host with a browser")
	}
	verifier := oauth2.GenerateVerifier()
	d, err := a.config.DeviceAuth(a.context(ctx), oauth2.S256ChallengeOption(verifier))
	if err != nil {
		return Tokens{}, a.refused(ctx, err, "begin to sign in")
	}
	if err := show(d.VerificationURI, d.UserCode); err != nil {
		return Tokens{}, err
	}
	t, err := a.config.DeviceAccessToken(a.context(ctx), d, oauth2.VerifierOption(verifier))
	if err != nil {
		return Tokens{}, a.refused(ctx, err, "sign in")
	}
	return a.read(ctx, t, "")
}

const callbackPath = "/callback"

// listen listens on a port of loopback, by both of its addresses where there are both: which one a
// browser takes for localhost isn't known.
func listen(ctx context.Context, port int) ([]net.Listener, int, error) {
	var l net.ListenConfig
	four, err := l.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, 0, errs.Wrap(errs.Conflict, err, "listen for the browser").
			WithRemedy("choose another --port, or none")
	}
	addr, ok := four.Addr().(*net.TCPAddr)
	if !ok {
		return nil, 0, errs.New(errs.Internal, "the port of %s isn't known", four.Addr())
	}
	all := []net.Listener{four}
	if six, err := l.Listen(ctx, "tcp6", net.JoinHostPort("::1",
		strconv.Itoa(addr.Port))); err == nil {
		all = append(all, six)
	}
	return all, addr.Port, nil
}

// answer is with what the browser came back.
type answer struct {
	code string
	err  error
}

// callback takes the browser's return.
type callback struct {
	state, issuer string
	came          chan answer
}

// wait serves until the browser has come back, and returns with what.
func (c *callback) wait(ctx context.Context, listeners []net.Listener,
	show func(context.Context) error) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			_ = server.Serve(l) // until it is shut down below
			return nil
		})
	}
	g.Go(func() error { return show(ctx) })
	var came answer
	g.Go(func() error {
		var err error
		select {
		case came = <-c.came:
			err = came.err
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		// The browser gets its page before that.
		stop, end := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer end()
		_ = server.Shutdown(stop)
		_ = server.Close()
		cancel()
		return err
	})
	err := g.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		err = errs.New(errs.Unavailable, "nobody has signed in within %s", patience).
			WithRemedy("sluice login")
	}
	return came, err
}

// ServeHTTP implements http.Handler.
func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	q := r.URL.Query()
	if r.URL.Path != callbackPath || r.Method != http.MethodGet ||
		subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(c.state)) != 1 {
		w.WriteHeader(http.StatusNotFound) // it is not of this sign-in, which goes on
		_, _ = io.WriteString(w, "This is not what sluice login waits for.\n")
		return
	}
	a := answer{code: q.Get("code")}
	switch iss := q.Get("iss"); {
	case q.Get("error") != "":
		a.err = errs.New(errs.Denied, "the issuer has refused the sign-in: %s",
			plain(q.Get("error")+" "+q.Get("error_description"))).WithRemedy("sluice login")
	case iss != "" && iss != c.issuer:
		a.err = errs.New(errs.Denied, "another issuer has answered: %s", plain(iss)).
			WithRemedy("sluice login")
	case a.code == "":
		a.err = errs.New(errs.Denied, "the issuer has given no code").WithRemedy("sluice login")
	}
	select {
	case c.came <- a:
	default: // the first one counts
	}
	if a.err != nil {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "You are not signed in. The terminal says why.\n")
		return
	}
	_, _ = io.WriteString(w, "Back to the terminal: this page can be closed.\n")
}
