package fleet

import (
	"bytes"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bounds of an app's secrets: each machine of the app is told all of them.
const (
	MaxSecrets     = 64
	MaxSecretBytes = 32 << 10 // of one
	MaxAppSecrets  = 64 << 10 // bytes of all
)

// NetworkKey is a key of a network, sealed under the fleet's. The keys of the disks of its machines
// are derived from it.
type NetworkKey struct {
	Number uint32    `json:"number"` // from 1; later keys have greater ones
	Sealed []byte    `json:"sealed"`
	Made   time.Time `json:"made"`
}

// SecretScope is whose a secret is: those machines are told it that are of the app, in the network.
type SecretScope struct {
	Network NetworkName `json:"network"`
	App     AppName     `json:"app"`
}

// Check returns nil if both are names.
func (s SecretScope) Check() error {
	if err := CheckName("network", string(s.Network)); err != nil {
		return err
	}
	return CheckName("app", string(s.App))
}

// Secret is the record of a secret. Its value is sealed under the fleet's key.
type Secret struct {
	SecretScope
	Name   string    `json:"name"` // of the environment variable
	Sealed []byte    `json:"sealed"`
	Digest string    `json:"digest"` // tells values apart; nothing without the fleet's key
	SetAt  time.Time `json:"set_at"`
}

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// CheckSecretName accepts names of environment variables, but for those that the platform gives.
func CheckSecretName(name string) error {
	if !secretName.MatchString(name) {
		return errs.New(errs.Invalid, "secret name %q is no name of an environment variable", name).
			WithRemedy("use up to 128 letters, digits and underscores, and don't begin with a digit")
	}
	if len(name) >= 7 && name[:7] == "SLUICE_" {
		return errs.New(errs.Invalid, "secret name %q begins with SLUICE_, as the platform's do",
			name).
			WithRemedy("choose another name")
	}
	return nil
}

// CheckSecretValue accepts what can be in an environment variable.
func CheckSecretValue(name string, value []byte) error {
	switch {
	case len(value) == 0:
		return errs.New(errs.Invalid, "the value of secret %s is empty", name).
			WithRemedy("to remove it: sluice secret unset --network NETWORK --app APP %s", name)
	case len(value) > MaxSecretBytes:
		return errs.New(errs.Invalid, "the value of secret %s has %d bytes; %d are the most", name,
			len(value), MaxSecretBytes).
			WithRemedy("keep what is long on the disk, sealed under a key that is a secret")
	case bytes.IndexByte(value, 0) >= 0 || !utf8.Valid(value):
		return errs.New(errs.Invalid, "the value of secret %s is no text", name).
			WithRemedy("encode it, in base64 for example")
	}
	return nil
}
