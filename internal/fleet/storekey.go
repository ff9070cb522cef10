package fleet

import (
	"context"
	"log/slog"
	"time"
)

// StoreCredentials is what a worker gets of the fleet's store. No print or log of it has the key.
type StoreCredentials struct {
	// Generation is of what the server itself has, and grows when that changes.
	Generation int64 `json:"generation"`
	// Unchanged: the worker has what it asked for more of. There is no key in here.
	Unchanged bool `json:"unchanged,omitempty"`
	// None: the store takes none.
	None bool `json:"none,omitempty"`
	// Own: the server hands none out, and the worker uses its own.
	Own          bool   `json:"own,omitempty"`
	AccessKey    string `json:"access_key,omitempty"`
	SecretKey    string `json:"secret_key,omitempty"`
	SessionToken string `json:"session_token,omitempty"`
	// TTL is for how long it can be used from now on, by whichever clock; 0: until it is changed.
	TTL time.Duration `json:"ttl,omitempty"`
}

// String says nothing, so that no log can.
func (StoreCredentials) String() string { return "(private)" }

// GoString says nothing either.
func (StoreCredentials) GoString() string { return "(private)" }

// LogValue implements slog.LogValuer.
func (StoreCredentials) LogValue() slog.Value { return slog.StringValue("(private)") }

// Where a worker has the store's credentials from.
const (
	StoreKeyOfServer = "server"
	StoreKeyOwn      = "own" // this host's
)

// StoreKeyReport is which credentials of the store a worker uses: their name, and not their secret.
type StoreKeyReport struct {
	Source     string    `json:"source"`               // server or own
	Generation int64     `json:"generation,omitempty"` // 0: it has none of the server's yet
	KeyID      string    `json:"key_id,omitempty"`
	Expires    time.Time `json:"expires,omitzero"` // zero: never
	Kept       bool      `json:"kept,omitempty"`   // by the kernel, over a restart of the daemon
}

// StoreKeyView is which credentials of the store the server has, and what it gives to workers.
type StoreKeyView struct {
	Needed     bool   // false: the store takes anybody who can reach it, as a directory does
	Source     string // file, or own: the usual chain of the AWS tools
	Role       string // that workers' are of; "": they get the server's own
	Withheld   bool   // workers get none
	Generation int64
	KeyID      string
	Since      time.Time // of the generation
	Expires    time.Time // zero: never
	Trouble    string    // why newer ones can't be used, or given out; "": they can
}

// StoreKeys keeps the store's credentials, and gives them to workers.
type StoreKeys interface {
	// StoreCredentials returns what a worker may use, once the generation differs from have or ctx
	// ends; at once if have is 0. Unavailable: none can be had now.
	StoreCredentials(ctx context.Context, worker WorkerID, have int64) (StoreCredentials, error)
	StoreKeys() StoreKeyView
}
