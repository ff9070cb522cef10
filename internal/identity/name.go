package identity

import (
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Role is what a part of a fleet is.
type Role string

// Roles.
const (
	Server Role = "server"
	Worker Role = "worker"
)

const scheme = "sluice"

// Name is whose a certificate is.
type Name struct {
	Fleet  string
	Role   Role
	Worker string // its name; "" for the server
	Term   int64  // of a worker: see the package's comment
}

// String is the name as a certificate has it.
func (n Name) String() string { return n.uri().String() }

func (n Name) uri() *url.URL {
	u := &url.URL{Scheme: scheme, Host: hostOf(n.Fleet), Path: "/" + string(n.Role)}
	if n.Role == Worker {
		u.Path += "/" + n.Worker
		u.RawQuery = "term=" + strconv.FormatInt(n.Term, 10)
	}
	return u
}

// hostOf gives a fleet's id a form that a URI's host may have.
func hostOf(fleet string) string {
	plain := fleet != "" && !strings.HasPrefix(fleet, "x-")
	for _, label := range strings.Split(fleet, ".") {
		plain = plain && label != "" && strings.IndexFunc(label, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
		}) < 0
	}
	if plain {
		return fleet
	}
	return "x-" + hex.EncodeToString([]byte(fleet))
}

// fleetOfHost is what hostOf was given.
func fleetOfHost(host string) string {
	if coded, ok := strings.CutPrefix(host, "x-"); ok {
		if plain, err := hex.DecodeString(coded); err == nil {
			return string(plain)
		}
	}
	return host
}

// nameOf returns the one name that a certificate has, in this fleet. Denied: it has none.
func nameOf(cert *x509.Certificate, fleet string) (Name, error) {
	for _, u := range cert.URIs {
		if u.Scheme != scheme {
			continue
		}
		n := Name{Fleet: fleet}
		role, worker, named := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		n.Role, n.Worker = Role(role), worker
		n.Term, _ = strconv.ParseInt(u.Query().Get("term"), 10, 64)
		known := n.Role == Server && !named || n.Role == Worker && worker != ""
		// A form that we would not have written is not ours.
		if known && n.String() == u.String() {
			return n, nil
		}
		return Name{}, errs.New(errs.Denied,
			"the certificate is of %s, and not of a part of fleet %s", u, fleet)
	}
	return Name{}, errs.New(errs.Denied, "the certificate names no part of a fleet")
}
