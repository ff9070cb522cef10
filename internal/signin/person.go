package signin

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Person is somebody whom the issuer vouches for, with what the roles grant.
type Person struct {
	Issuer   string
	Subject  string // what the issuer never gives to anybody else
	Username string // for people to read
	Groups   []string
	Expires  time.Time // the end of the ID token

	Grants []authz.Grant
	By     []string // lines of the roles that grant something, as in "group ops"
}

// Name returns the person's name among subjects: no token, and no part of a fleet, has its prefix.
func (p Person) Name() string { return string(authz.Person) + ":" + p.Username }

const maxToldGroups = 20

// groups names a person's groups for an error.
func (p Person) groups() string {
	if len(p.Groups) == 0 {
		return "the ID token names no group"
	}
	var told []string
	for _, g := range p.Groups[:min(len(p.Groups), maxToldGroups)] {
		told = append(told, strconv.Quote(quotable(g)))
	}
	if more := len(p.Groups) - maxToldGroups; more > 0 {
		told = append(told, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(told, ", ")
}

// Config of People. Zero values mean the defaults.
type Config struct {
	Issuer   string // its URL, exactly as its tokens name it
	ClientID string // for which its tokens must be
	CA       []byte // that vouches for the issuer, in PEM; nil: this host's authorities do
	// UsernameClaim and GroupsClaim say where an ID token names people and their groups; default
	// email and groups.
	UsernameClaim, GroupsClaim string
	Scopes                     []string // that logins ask for, beside the usual ones
	Roles                      string   // see ParseRoles

	Timeout   time.Duration // of one request to the issuer; default 10 s
	KeysEvery time.Duration // that its keys are asked for; default 10 min
	AskAgain  time.Duration // how often keys that aren't known let ask; default each 10 s
	KeyWait   time.Duration // how long a call waits for that; default 5 s
}

// Deps are the collaborators of People.
type Deps struct {
	Log *slog.Logger
	Now func() time.Time // nil: time.Now
}

// People knows who signs in. It is safe for concurrent use.
type People struct {
	cfg    Config
	now    func() time.Time
	issuer *issuer
	roles  atomic.Pointer[Roles]
}

// New checks a config. Nothing is asked of the issuer before Run.
func New(cfg Config, deps Deps) (*People, error) {
	if cfg.UsernameClaim == "" {
		cfg.UsernameClaim = "email"
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = "groups"
	}
	if cfg.ClientID == "" {
		return nil, errs.New(errs.Invalid, "no client id is given for issuer %s", cfg.Issuer).
			WithRemedy("register a public client at the issuer, for this fleet alone")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	cfg.CA = certificates(cfg.CA) // of a file that may have a key in it, and everybody is told them
	i, err := newIssuer(cfg, deps)
	if err != nil {
		return nil, err
	}
	p := &People{cfg: cfg, now: deps.Now, issuer: i}
	return p, p.SetRoles(cfg.Roles)
}

// certificates returns the certificates of a PEM file, and nothing else of it; the file itself if
// it has none, for which it is refused.
func certificates(file []byte) []byte {
	var out []byte
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			block.Headers = nil
			out = append(out, pem.EncodeToMemory(block)...)
		}
	}
	if len(out) == 0 {
		return file
	}
	return out
}

// Run asks the issuer for its keys, until ctx ends.
func (p *People) Run(ctx context.Context) error { return p.issuer.run(ctx) }

// SetRoles replaces the roles by those in a text. After an error the former ones count.
func (p *People) SetRoles(text string) error {
	r, err := ParseRoles(text)
	if err == nil {
		p.roles.Store(r)
	}
	return err
}

// Offer is what somebody needs to know who wants to sign in. None of it is secret: whoever begins
// a login at the issuer sees it.
type Offer struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"client_id"`
	Scopes   []string `json:"scopes,omitempty"`
	CA       []byte   `json:"ca,omitempty"`
}

// Offer returns how to sign in.
func (p *People) Offer() Offer {
	return Offer{Issuer: p.cfg.Issuer, ClientID: p.cfg.ClientID, Scopes: p.cfg.Scopes, CA: p.cfg.CA}
}

// Person returns whose an ID token is. Denied: it doesn't count, or the roles grant nothing;
// Unavailable: nobody knows now, because the issuer has given no keys.
func (p *People) Person(ctx context.Context, idToken string) (Person, error) {
	c, err := p.issuer.verify(ctx, idToken)
	if err != nil {
		return Person{}, err
	}
	who, err := p.read(c)
	if err != nil {
		return Person{}, err
	}
	return p.roles.Load().give(who)
}

// Again returns a person with what the roles grant now. Denied: nothing, or the ID token has ended.
func (p *People) Again(who Person, now time.Time) (Person, error) {
	if !now.Before(who.Expires) {
		return who, errs.New(errs.Denied, "the sign-in of %s ended at %s", who.Name(),
			who.Expires.UTC().Format(time.RFC3339)).WithRemedy("sluice login")
	}
	return p.roles.Load().give(who)
}

// read returns the person of a token that was verified.
func (p *People) read(c claims) (Person, error) {
	who := Person{Issuer: p.cfg.Issuer, Subject: c.Subject, Expires: c.Expiry.time()}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(c.payload, &all); err != nil {
		return who, errs.Wrap(errs.Denied, err, "read the ID token's claims")
	}
	name := p.cfg.UsernameClaim
	if json.Unmarshal(all[name], &who.Username) != nil || !isName(who.Username) {
		return who, errs.New(errs.Denied,
			"the ID token has no claim %q with a name of 1 to %d bytes", name, maxName).
			WithRemedy("have the issuer put it in, or give the server another --oidc-username-claim")
	}
	if name == "email" && isFalse(all["email_verified"]) {
		return who, errs.New(errs.Denied, "the issuer has not verified the address %s",
			who.Username).WithRemedy("verify it at the issuer; then: sluice login")
	}
	raw, ok := all[p.cfg.GroupsClaim]
	if !ok || string(raw) == "null" {
		return who, nil
	}
	var one string
	if json.Unmarshal(raw, &who.Groups) != nil {
		if json.Unmarshal(raw, &one) != nil {
			return who, errs.New(errs.Denied, "claim %q of the ID token is no list of groups",
				p.cfg.GroupsClaim).WithRemedy("give the server another --oidc-groups-claim")
		}
		who.Groups = []string{one}
	}
	return who, nil
}

// isName reports whether a name can be shown, and told from others by looking at it.
func isName(name string) bool {
	return name != "" && len(name) <= maxName && strings.TrimSpace(name) == name &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isFalse is for issuers that write booleans as text, too.
func isFalse(raw json.RawMessage) bool { return string(raw) == "false" || string(raw) == `"false"` }
