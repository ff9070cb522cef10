package api

import "time"

// States of a worker's credentials of the store.
const (
	StoreCredentialsCurrent = "current" // those that the server gives now
	StoreCredentialsOlder   = "older"   // those before
	StoreCredentialsOwn     = "own"     // its host's; the server doesn't know which
	StoreCredentialsUnknown = "unknown" // it hasn't said, or is of an earlier release
	StoreCredentialsExpired = "expired" // those before, which have ended by themselves
	StoreCredentialsRevoked = "revoked" // it is shut out and gets none; it may have what it had
	StoreCredentialsNone    = "none"    // the store needs none
)

// StoreCredentials says which credentials of the store the fleet uses, and has no secret.
type StoreCredentials struct {
	Needed bool `json:"needed"` // false: the store takes none
	// Source is where the server has them from: file, or own (the AWS tools' places).
	Source     string    `json:"source"`
	Role       string    `json:"role,omitempty"`     // that workers get sessions of
	Withheld   bool      `json:"withheld,omitempty"` // workers get none
	Generation int64     `json:"generation"`         // grows with each change of the server's
	KeyID      string    `json:"key_id,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Expires    time.Time `json:"expires,omitzero"` // zero: never
	Trouble    string    `json:"trouble,omitempty"`
	// Settled: all workers that aren't shut out use what belongs to the present generation, or
	// their own, so that an earlier key can be deleted at the store.
	Settled bool                     `json:"settled"`
	Workers []WorkerStoreCredentials `json:"workers"`
}

// WorkerStoreCredentials is which credentials of the store a worker said last that it uses.
type WorkerStoreCredentials struct {
	Worker     string    `json:"worker"`
	Liveness   string    `json:"liveness"`
	State      string    `json:"state"`
	Generation int64     `json:"generation,omitempty"`
	KeyID      string    `json:"key_id,omitempty"`
	Expires    time.Time `json:"expires,omitzero"` // zero: never
	Kept       bool      `json:"kept,omitempty"`   // over a restart of its daemon; not asked since
}

// StoreKey names credentials of the store that a worker uses, without their secret.
type StoreKey struct {
	Source     string    `json:"source"` // server, or own: its host's
	Generation int64     `json:"generation,omitempty"`
	KeyID      string    `json:"key_id,omitempty"`
	Expires    time.Time `json:"expires,omitzero"` // zero: never
	Kept       bool      `json:"kept,omitempty"`
}
