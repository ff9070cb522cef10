package fleet

import (
	"context"
	"net/url"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// JoinToken is the record of a token that lets one worker into the fleet, once.
type JoinToken struct {
	ID        string    `json:"id"`
	Worker    WorkerID  `json:"worker"`
	Hash      string    `json:"hash"` // of its secret
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// UsedAt is when it was used, Key what identifies the key that it was used with, and Term that
	// of the certificate.
	UsedAt time.Time `json:"used_at,omitzero"`
	Key    string    `json:"key,omitempty"`
	Term   int64     `json:"term,omitempty"`
}

// WorkerIdentity is the record of which certificates of a worker are taken: those of its newest
// term, unless that is revoked. Terms grow, also if the state is set back: they begin with a time.
type WorkerIdentity struct {
	Worker    WorkerID  `json:"worker"`
	Term      int64     `json:"term,omitempty"`
	Revoked   int64     `json:"revoked,omitempty"` // terms up to this one are refused
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	Reason    string    `json:"reason,omitempty"` // for people
}

// IsRevoked reports whether all certificates that the worker has got are refused.
func (w WorkerIdentity) IsRevoked() bool { return w.Revoked > 0 && w.Revoked >= w.Term }

// EnrollRequest is what a worker asks with a join token.
type EnrollRequest struct {
	Worker  WorkerID `json:"worker"`
	Token   string   `json:"token"`
	Request string   `json:"request"` // for a certificate, in PEM
}

// RenewRequest is what a worker asks with its present certificate.
type RenewRequest struct {
	Request string `json:"request"`
}

// EnrollAnswer has what makes a worker part of the fleet, in PEM.
type EnrollAnswer struct {
	Certificate string `json:"certificate"`
	Authority   string `json:"authority"`
}

// Enrolment is who gets a certificate, and whose is taken.
type Enrolment interface {
	// CreateJoinToken returns the record of a new token, and the token itself, which nobody can
	// read again.
	CreateJoinToken(ctx context.Context, worker WorkerID, ttl time.Duration) (JoinToken, string,
		error)
	// JoinTokens returns those that can be used and those that have been lately, oldest first.
	JoinTokens(ctx context.Context) ([]JoinToken, error)
	// DeleteJoinToken makes a token worthless. A certificate that was got by it stays.
	DeleteJoinToken(ctx context.Context, id string) error
	// Enroll answers once for each token, and again for the same key until the token expires.
	// Denied: no such token, expired, used, or of another worker. Conflict: the worker of that name
	// is alive.
	Enroll(ctx context.Context, req EnrollRequest) (EnrollAnswer, error)
	// Renew answers a worker whose certificate of a term is taken.
	Renew(ctx context.Context, worker WorkerID, term int64, request string) (EnrollAnswer, error)
	// RevokeWorker makes every certificate and join token that a worker has got so far worthless.
	RevokeWorker(ctx context.Context, worker WorkerID, reason string) (WorkerIdentity, error)
	// CheckWorker is Denied if a worker's certificates of a term are refused.
	CheckWorker(worker WorkerID, term int64) error
	// OnRefused calls do once CheckWorker begins to refuse, until remove is called. do must not
	// block.
	OnRefused(worker WorkerID, term int64, do func()) (remove func())
	// Authority returns who vouches for the parts of the fleet, and which workers know of it.
	Authority(ctx context.Context) (AuthorityView, error)
	// RotateAuthority takes a step of a rotation: see identity.Step. Conflict: it isn't the next
	// one, or, unless forced, a worker hasn't followed the one before.
	RotateAuthority(ctx context.Context, step string, force bool) (AuthorityView, error)
}

// AuthorityState is who vouches for the parts of the fleet.
type AuthorityState struct {
	Phase   string // of a rotation
	Version string // of what is trusted, and who signs
	PEM     string
	Certs   []AuthorityCert // the first signs
}

// AuthorityCert is one certificate that all parts trust.
type AuthorityCert struct {
	Fingerprint         string // SHA-256, in hex
	Subject             string
	NotBefore, NotAfter time.Time
	Signs               bool
}

// AuthorityView is AuthorityState with what workers have of it.
type AuthorityView struct {
	AuthorityState
	Current []WorkerID // trust just that, and have certificates of who signs
	Behind  []WorkerID // don't, or don't say
}

// WorkerAPI is where the server reaches a worker, and who has to answer there.
type WorkerAPI struct {
	Worker WorkerID
	URL    string
	Term   int64 // of the worker's newest certificates; 0: not known
}

// CheckPlace is Invalid unless the URL of a worker's API is at the worker's own address.
func (r JoinRequest) CheckPlace() error {
	u, err := url.Parse(r.APIURL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return errs.New(errs.Invalid, "the API of worker %s at %q is not at an https URL", r.Worker,
			r.APIURL).WithRemedy("run the release of the server on the worker")
	}
	if u.Hostname() != r.Address.String() {
		return errs.New(errs.Invalid,
			"the API of worker %s is at %s, which is not the worker's address %s", r.Worker,
			u.Hostname(), r.Address).
			WithRemedy("give the worker a --listen on its --address")
	}
	return nil
}
