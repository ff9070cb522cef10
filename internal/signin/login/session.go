package login

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/filelock"
)

// Session is somebody's sign-in to one server.
type Session struct {
	Server   string       `json:"server"`              // its URL
	ServerCA []byte       `json:"server_ca,omitempty"` // that vouches for it, in PEM
	Offer    signin.Offer `json:"issuer"`
	Tokens   Tokens       `json:"tokens"`
}

// Store keeps sessions in a directory of somebody's own: a file for each server, and the name of
// the server that was signed in to last.
type Store struct {
	dir string
	now func() time.Time
}

// NewStore returns a store in dir, which need not exist; "": one that keeps nothing.
func NewStore(dir string) *Store { return &Store{dir: dir, now: time.Now} }

const (
	lastFile  = "server" // has the server that was signed in to last
	secret    = 0o600
	secretDir = 0o700
)

// Dir returns where the store is.
func (s *Store) Dir() string { return s.dir }

// path returns the file of a server's session.
func (s *Store) path(server string) string {
	sum := sha256.Sum256([]byte(server))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:8])+".json")
}

// Save keeps a session, and that its server is the last.
func (s *Store) Save(v Session) error {
	err := os.MkdirAll(s.dir, secretDir) // of "" it fails
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "make the directory for sign-ins").
			WithRemedy("set HOME or XDG_CONFIG_HOME to a directory that you can write")
	}
	if err := s.write(v); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.dir, lastFile), []byte(v.Server+"\n"), secret)
}

func (s *Store) write(v Session) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the sign-in")
	}
	return atomicfile.Write(s.path(v.Server), append(data, '\n'), secret)
}

// Load returns the session of a server. NotFound: there is none.
func (s *Store) Load(server string) (Session, error) {
	var v Session
	if s.dir == "" {
		return v, notSignedIn(server)
	}
	path := s.path(server)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v, notSignedIn(server)
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return v, errs.New(errs.Denied, "others can read %s, which is as good as your password",
			path).WithRemedy("chmod 600 %s; if others may have read it: sluice logout, sluice login",
			path)
	}
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			err = json.Unmarshal(data, &v)
		}
	}
	if err != nil {
		return v, errs.Wrap(errs.Invalid, err, "read the sign-in to %s", server).
			WithRemedy("sluice login --server %s", server)
	}
	return v, nil
}

func notSignedIn(server string) error {
	return errs.New(errs.NotFound, "you are not signed in to %s", server).
		WithRemedy("sluice login --server %s", server)
}

// Last returns the server that was signed in to last; "" for none.
func (s *Store) Last() (string, error) {
	if s.dir == "" {
		return "", nil
	}
	data, err := os.ReadFile(filepath.Join(s.dir, lastFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "read where you signed in last")
	}
	return string(trimLine(data)), nil
}

func trimLine(data []byte) []byte {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		return data[:n-1]
	}
	return data
}

// Remove forgets the session of a server. NotFound: there is none.
func (s *Store) Remove(server string) error {
	err := os.Remove(s.path(server))
	if s.dir == "" || errors.Is(err, fs.ErrNotExist) {
		return notSignedIn(server)
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "forget the sign-in to %s", server)
	}
	last, err := s.Last()
	if err != nil || last != server {
		return err
	}
	return os.Remove(filepath.Join(s.dir, lastFile))
}

// stale reports whether tokens are to be renewed: a moment before their end.
func (s *Store) stale(t Tokens) bool {
	early := min(2*time.Minute, t.Expires.Sub(t.IssuedAt)/5)
	return !s.now().Before(t.Expires.Add(-early))
}

// Token returns an ID token for a server that counts for some time yet. It is renewed where that is
// needed, by one process at a time: a refresh token may be good for one use.
func (s *Store) Token(ctx context.Context, server string) (string, error) {
	v, err := s.Load(server)
	if err != nil || !s.stale(v.Tokens) {
		return v.Tokens.IDToken, err
	}
	fresh, err := s.renew(ctx, server)
	switch {
	case err == nil:
		return fresh.IDToken, nil
	case s.now().Before(v.Tokens.Expires) && !errs.Is(err, errs.NotFound):
		return v.Tokens.IDToken, nil // it counts yet, and the next call tries again
	}
	return "", err
}

func (s *Store) renew(ctx context.Context, server string) (Tokens, error) {
	lock, err := os.OpenFile(s.path(server)+".lock", os.O_CREATE|os.O_RDWR, secret)
	if err != nil {
		return Tokens{}, errs.Wrap(errs.Unavailable, err, "lock the sign-in")
	}
	if err := s.take(ctx, lock); err != nil {
		return Tokens{}, errors.Join(err, lock.Close())
	}
	defer func() { _ = filelock.Close(lock) }()
	v, err := s.Load(server) // another process may have renewed it meanwhile
	if err != nil || !s.stale(v.Tokens) {
		return v.Tokens, err
	}
	if v.Tokens.RefreshToken == "" {
		return Tokens{}, errs.New(errs.Denied,
			"your sign-in to %s ended at %s, and can't be renewed", server,
			v.Tokens.Expires.Format(time.RFC3339)).
			WithRemedy("sluice login --server %s", server)
	}
	a, err := ask(ctx, v.Offer)
	if err != nil {
		return Tokens{}, err
	}
	if v.Tokens, err = a.renew(ctx, v.Tokens); err != nil {
		return Tokens{}, err
	}
	return v.Tokens, s.write(v)
}

// take waits for the lock as long as an issuer may take.
func (s *Store) take(ctx context.Context, lock *os.File) error {
	for deadline := s.now().Add(2 * Timeout); ; {
		err := filelock.Take(lock)
		if err == nil || !errs.Is(err, errs.Conflict) || s.now().After(deadline) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
