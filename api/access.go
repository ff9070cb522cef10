package api

import "time"

// Grant is what a token lets its holder do, and where: no network means all, no app means all.
type Grant struct {
	Network string `json:"network,omitempty"`
	App     string `json:"app,omitempty"`
	Verb    string `json:"verb"` // read, use, operate or admin; each has those before it
}

// CreateToken asks for a token.
type CreateToken struct {
	Name   string  `json:"name"`
	Grants []Grant `json:"grants"`
	TTL    float64 `json:"ttl,omitempty"` // seconds; 0: it doesn't expire
}

// Token is a token of a person or program. Its text is in the answer to CreateToken alone.
type Token struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Token      string    `json:"token,omitempty"`
	Grants     []Grant   `json:"grants"`
	State      string    `json:"state"` // live, expired or revoked
	CreatedAt  time.Time `json:"created_at"`
	CreatedBy  string    `json:"created_by"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	RevokedBy  string    `json:"revoked_by,omitempty"`
	LastUsedAt time.Time `json:"last_used_at,omitzero"` // about a minute late
}

// AuditEntry is one call that changed something, an exec, or the end of one.
type AuditEntry struct {
	Seq       int64        `json:"seq"`
	Time      time.Time    `json:"time"` // of the answer
	RequestID string       `json:"request_id"`
	CallersID string       `json:"callers_id,omitempty"` // what the caller gave as X-Request-Id
	Kind      string       `json:"kind"`                 // operator, token or oidc
	Subject   string       `json:"subject"`
	Token     string       `json:"token,omitempty"`  // its id
	Person    *AuditPerson `json:"person,omitempty"` // of somebody who has signed in
	Remote    string       `json:"remote"`
	Call      string       `json:"call"`
	Objects   []string     `json:"objects,omitempty"` // kind/id
	Exec      *AuditExec   `json:"exec,omitempty"`
	Status    int          `json:"status"` // 0: it isn't known
	Code      string       `json:"code,omitempty"`
	TookMS    float64      `json:"took_ms"`
	Note      string       `json:"note,omitempty"`
}

// AuditPerson is what the issuer and the server's roles said of somebody who has signed in.
type AuditPerson struct {
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"` // as the issuer calls nobody else
	By      []string `json:"by"`      // lines of the roles that counted, as in "group ops"
}

// SignIn is how people sign in to a fleet. None of it is secret.
type SignIn struct {
	Issuer   string   `json:"issuer"`           // of OpenID Connect
	ClientID string   `json:"client_id"`        // for which its ID tokens must be
	Scopes   []string `json:"scopes,omitempty"` // to ask for, beside the usual ones
	CA       string   `json:"ca,omitempty"`     // that vouches for the issuer, in PEM
}

// Caller is who makes a call, as the server knows it.
type Caller struct {
	Kind      string       `json:"kind"` // operator, token or oidc
	Name      string       `json:"name"`
	Token     string       `json:"token,omitempty"`  // its id
	Person    *AuditPerson `json:"person,omitempty"` // of somebody who has signed in
	Groups    []string     `json:"groups,omitempty"` // that the issuer says the person is in
	Grants    []Grant      `json:"grants"`
	ExpiresAt time.Time    `json:"expires_at,omitzero"`
}

// AuditExec is a command of which only the program is told.
type AuditExec struct {
	Program string `json:"program"`
	SHA256  string `json:"sha256"` // of all arguments, each ended by a NUL
}

// AuditReport says whether the audit log is whole.
type AuditReport struct {
	Objects int64       `json:"objects"`
	Entries int64       `json:"entries"`
	First   time.Time   `json:"first,omitzero"`
	Last    time.Time   `json:"last,omitzero"`
	Hash    string      `json:"hash"` // of the last object; it proves all before it
	Break   *AuditBreak `json:"break,omitempty"`
}

// AuditList is a page of the audit log.
type AuditList struct {
	Items []AuditEntry `json:"items"`
	Next  string       `json:"next,omitempty"`
	Break *AuditBreak  `json:"break,omitempty"` // of what was read for this page
}

// AuditBreak is the first place at which the audit log isn't what was written.
type AuditBreak struct {
	Object int64  `json:"object"`
	Why    string `json:"why"`
}

// CreateJoinToken asks for a token by which a worker joins the fleet.
type CreateJoinToken struct {
	Worker     string `json:"worker"`
	TTLSeconds int64  `json:"ttl_seconds,omitempty"` // 0: an hour
}

// JoinToken lets one worker into the fleet, once.
type JoinToken struct {
	ID        string    `json:"id"`
	Worker    string    `json:"worker"`
	Token     string    `json:"token,omitempty"` // only in the answer that made it
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	UsedAt    time.Time `json:"used_at,omitzero"`
}

// Authority is who vouches for the parts of a fleet, and how far workers have followed it.
type Authority struct {
	Phase        string                 `json:"phase"` // of a rotation: settled, begun, switched
	Certificates []AuthorityCertificate `json:"certificates"`
	PEM          string                 `json:"pem"`     // what parts and clients are to trust
	Current      []string               `json:"current"` // workers that have followed
	Behind       []string               `json:"behind"`  // workers that have not, or don't say
}

// AuthorityCertificate is one certificate that all parts of a fleet trust.
type AuthorityCertificate struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256, in hex
	Subject     string    `json:"subject"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Signs       bool      `json:"signs"`
}

// RotateAuthority asks for a step of a rotation: begin, switch, finish or abort.
type RotateAuthority struct {
	Step  string `json:"step"`
	Force bool   `json:"force,omitempty"` // leave workers behind that have not followed
}

// RevokedWorker is a worker whose certificates are refused.
type RevokedWorker struct {
	ID        string    `json:"id"`
	RevokedAt time.Time `json:"revoked_at"`
	Reason    string    `json:"reason,omitempty"`
}
