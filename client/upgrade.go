package client

import (
	"net/http"
)

// upgrading sends upgrades over connections that are open already, as it does all else. Without it
// each command would pay for a TLS handshake of its own: net/http keeps apart what asks for a
// websocket, as connections that it has may speak HTTP/2. Ours never do: see trusting.
type upgrading struct{ http.RoundTripper }

// upgradeHeader is Upgrade, as net/http doesn't look for it. Servers take names in any case.
const upgradeHeader = "upgrade"

// RoundTrip implements http.RoundTripper.
func (u upgrading) RoundTrip(r *http.Request) (*http.Response, error) {
	if to, ok := r.Header["Upgrade"]; ok {
		r = r.Clone(r.Context())
		delete(r.Header, "Upgrade")
		r.Header[upgradeHeader] = to
	}
	return u.RoundTripper.RoundTrip(r)
}
