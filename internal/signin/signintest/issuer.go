// Package signintest is an OpenID Connect issuer for tests that need what no honest one does: keys
// of their own choice, tokens with any content, and answers that hang, are huge, or lead elsewhere.
// The real one is in package dextest.
package signintest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ClientID is for whom the issuer's tokens are.
const ClientID = "fleet"

// Issuer is a running issuer, on loopback.
type Issuer struct {
	URL   string
	Asked atomic.Int64 // how often it was asked for its keys

	mu   sync.Mutex
	keys []jose.JSONWebKey // public ones
	deal http.HandlerFunc  // answers in place of the keys; nil: the keys
	give http.HandlerFunc  // answers who asks for tokens
}

// Start starts an issuer with a first key.
func Start(t testing.TB) (*Issuer, *Signer) {
	t.Helper()
	i := &Issuer{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration",
		func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL,
				"jwks_uri":               i.URL + "/keys",
				"authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
				"id_token_signing_alg_values_supported": []string{"ES256"}})
		})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		i.Asked.Add(1)
		i.mu.Lock()
		deal, keys := i.deal, jose.JSONWebKeySet{Keys: i.keys}
		i.mu.Unlock()
		if deal != nil {
			deal(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(keys)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		give := i.give
		i.mu.Unlock()
		give(w, r)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	i.URL = s.URL
	return i, i.Rotate(t, "first")
}

// Deal has the issuer answer otherwise when it is asked for its keys; nil: with them.
func (i *Issuer) Deal(how http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deal = how
}

// Give has the issuer answer who asks for tokens.
func (i *Issuer) Give(how http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.give = how
}

// Rotate gives the issuer a new key, in place of all that it has.
func (i *Issuer) Rotate(t testing.TB, id string) *Signer {
	t.Helper()
	s := NewSigner(t, id)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = []jose.JSONWebKey{{Key: s.Key.Public(), KeyID: id, Algorithm: "ES256", Use: "sig"}}
	return s
}

// Claims returns those of a token that counts for an hour, with some changed; nil takes one away.
func (i *Issuer) Claims(changed map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{"iss": i.URL, "aud": ClientID, "sub": "sub-of-alice",
		"email": "alice@example.com", "email_verified": true, "groups": []string{"staff"},
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(c, changed)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Signer signs tokens.
type Signer struct {
	ID  string
	Key *ecdsa.PrivateKey
}

// NewSigner returns one that no issuer knows.
func NewSigner(t testing.TB, id string) *Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{id, key}
}

// Sign returns a token of claims.
func (s *Signer) Sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	return SignBy(t, jose.SigningKey{Algorithm: jose.ES256,
		Key: jose.JSONWebKey{Key: s.Key, KeyID: s.ID}}, "JWT", claims)
}

// SignBy returns a token of claims by any key, of any type.
func SignBy(t testing.TB, key jose.SigningKey, kind string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType(jose.ContentType(kind)))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
