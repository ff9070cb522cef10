package signin

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// issuer has the keys of an issuer. Only run asks for them.
type issuer struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	http *http.Client
	wake chan struct{} // a key isn't known: ask at once
	woke *rate.Limiter // how often that may be

	mu    sync.Mutex
	keys  []jose.JSONWebKey // the last that were given
	given time.Time         // when; zero: never
	asked time.Time         // when that was tried last
	asks  bool              // it is being tried
	err   error             // of the last try
	tried chan struct{}     // closed at the end of the next try
}

// wakes is how often in a row a key that isn't known lets ask, before AskAgain counts.
const wakes = 3

func newIssuer(cfg Config, deps Deps) (*issuer, error) {
	if _, err := checkURL(cfg.Issuer); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "the issuer's URL").
			WithRemedy("give the URL at which .well-known/openid-configuration is")
	}
	for _, d := range []struct {
		of        *time.Duration
		otherwise time.Duration
	}{{&cfg.Timeout, 10 * time.Second}, {&cfg.KeysEvery, 10 * time.Minute},
		{&cfg.AskAgain, 10 * time.Second}, {&cfg.KeyWait, 5 * time.Second}} {
		if *d.of == 0 {
			*d.of = d.otherwise
		}
	}
	client, err := HTTPClient(cfg.CA, cfg.Timeout)
	if err != nil {
		return nil, err
	}
	return &issuer{cfg: cfg, log: deps.Log, now: deps.Now, http: client,
		wake: make(chan struct{}, 1), woke: rate.NewLimiter(rate.Every(cfg.AskAgain), wakes),
		tried: make(chan struct{})}, nil
}

// run asks for the keys now and then, soon again after a failure, and when it is woken.
func (i *issuer) run(ctx context.Context) error {
	wait := backoff.New(i.cfg.AskAgain/10+1, 6*i.cfg.AskAgain)
	told := ""
	for {
		err := i.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		next := i.cfg.KeysEvery
		switch {
		case err != nil:
			next = wait.Next()
			if causeOf(err) != told { // once for each reason
				i.log.WarnContext(ctx, "issuer gives no keys", "issuer", i.cfg.Issuer, "error", err)
			}
			told = causeOf(err)
		default:
			if told != "" {
				i.log.InfoContext(ctx, "issuer gives keys again", "issuer", i.cfg.Issuer)
			}
			told = ""
			wait.Reset()
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-i.wake:
			timer.Stop()
		}
	}
}

// ask asks once, and tells who waits for it.
func (i *issuer) ask(ctx context.Context) error {
	i.mu.Lock()
	i.asked, i.asks = i.now(), true
	select { // who has woken it gets what this try brings
	case <-i.wake:
	default:
	}
	i.mu.Unlock()
	keys, err := i.fetch(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err, i.asks = err, false
	if err == nil { // those that are gone there are gone here
		i.keys, i.given = keys, i.asked
	}
	close(i.tried)
	i.tried = make(chan struct{})
	return err
}

// fetch reads what the issuer says of itself, and then its keys.
func (i *issuer) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.http), i.cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("read what the issuer says of itself: %w", err)
	}
	var about struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&about); err != nil {
		return nil, fmt.Errorf("read where the issuer's keys are: %w", err)
	}
	if u, err := checkURL(about.Keys); err != nil || u.Scheme == "http" &&
		strings.HasPrefix(i.cfg.Issuer, "https:") {
		return nil, errs.New(errs.Unavailable, "it names an insecure place for its keys")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, about.Keys, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the issuer's keys: %w", err)
	}
	resp, err := i.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for the issuer's keys: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the issuer's keys: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for the issuer's keys: %w", statusError(resp.StatusCode))
	}
	return readKeys(data)
}

const maxKeys = 64

// readKeys returns the public keys for signatures of a set. Those of kinds that nobody knows here
// are left out, as an issuer may have them for others.
func readKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("decode the issuer's keys: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) == nil && k.Valid() && k.IsPublic() &&
			(k.Use == "" || k.Use == "sig") {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errs.New(errs.Unavailable, "it has no public key for signatures")
	}
	return keys, nil
}

// key returns the key that a token's header names. One that isn't known is asked for, but not more
// often than once in AskAgain, however many tokens name such keys.
func (i *issuer) key(ctx context.Context, h header) (jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(ctx, i.cfg.KeyWait)
	defer cancel()
	found, tried, err := i.have(h)
	if tried == nil {
		return found, err
	}
	select {
	case <-tried:
	case <-ctx.Done():
		return found, i.unknownKey(h, time.Time{}, context.Cause(ctx))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if found, ok := pick(i.keys, h); ok {
		return found, nil
	}
	return found, i.unknownKey(h, i.given, i.err)
}

// have returns the key that a header names, or what ends when there may be one, or why there is
// none.
func (i *issuer) have(h header) (jose.JSONWebKey, <-chan struct{}, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	found, ok := pick(i.keys, h)
	switch {
	case ok:
		return found, nil, nil
	case i.asks || i.asked.IsZero(): // it is under way, or will be
	case len(i.wake) > 0: // somebody else has asked for one
	case i.woke.AllowN(i.now(), 1):
		i.wake <- struct{}{} // under the lock that all hold who fill it
	default:
		return found, nil, i.unknownKey(h, i.given, i.err)
	}
	return found, i.tried, nil
}

// pick returns the key of a set that is meant. Without a name it is meant only if it is alone.
func pick(keys []jose.JSONWebKey, h header) (jose.JSONWebKey, bool) {
	for _, k := range keys {
		if (k.KeyID == h.Key || h.Key == "" && len(keys) == 1) &&
			(k.Algorithm == "" || k.Algorithm == h.Algorithm) {
			return k, true
		}
	}
	return jose.JSONWebKey{}, false
}

// unknownKey is why a token's signature can't be checked.
func (i *issuer) unknownKey(h header, given time.Time, err error) error {
	if err != nil {
		return errs.New(errs.Unavailable, "issuer %s can't be asked for its keys: %s", i.cfg.Issuer,
			causeOf(err)).
			WithRemedy("try again soon; meanwhile tokens of sluice token create and operators' tokens count")
	}
	return denied("the ID token is signed by key %q, which issuer %s didn't have at %s",
		quotable(h.Key), i.cfg.Issuer, given.UTC().Format(time.RFC3339)).
		WithRemedy("if the issuer has just changed its keys, try again in %s; else: sluice login",
			i.cfg.AskAgain)
}

// verify returns what a token says that counts now.
func (i *issuer) verify(ctx context.Context, raw string) (claims, error) {
	h, c, err := parse(raw)
	if err != nil {
		return c, err
	}
	now := i.now()
	if err := h.check(); err != nil {
		return c, err
	}
	if err := c.check(i.cfg, now); err != nil {
		return c, err
	}
	key, err := i.key(ctx, h)
	if err != nil {
		return c, err
	}
	verified, err := oidc.NewVerifier(i.cfg.Issuer,
		&oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.Key}},
		&oidc.Config{ClientID: i.cfg.ClientID, SupportedSigningAlgs: []string{h.Algorithm},
			Now: func() time.Time { return now }}).Verify(ctx, raw)
	if err != nil {
		return c, denied("the ID token's signature is not of key %q of issuer %s", quotable(h.Key),
			i.cfg.Issuer).WithRemedy("sluice login")
	}
	// What was signed counts, and nothing that was read before.
	var signed json.RawMessage
	c = claims{}
	if err := verified.Claims(&signed); err != nil {
		return c, errs.Wrap(errs.Denied, err, "read the ID token's claims")
	}
	if err := json.Unmarshal(signed, &c); err != nil {
		return c, errs.Wrap(errs.Denied, err, "read the ID token's claims")
	}
	c.payload = signed
	return c, c.check(i.cfg, now)
}
