// Package keyring keeps small secrets in the kernel's memory, over restarts of a process and not of
// the host.
package keyring

import (
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Keyring keeps something in the kernel's memory, in the keyring of this process's user, until the
// host is started anew. It is never swapped, and only its description can be listed. No other user
// gets at it, nor who is root of a user namespace, as VMs are.
type Keyring struct{ name string }

// New returns what is kept under a name.
func New(name string) *Keyring { return &Keyring{"sluice:" + name} }

const (
	keyType = "user"
	// perm lets its owner at a key, and nobody for merely possessing it: who was started by a login
	// of root possesses root's keys, whoever it is by now.
	perm = 0x003f0000
	// maxKept is the most that the kernel takes of this type
	maxKept = 32767
)

// Keep keeps b for as long as ttl, in place of what was kept before. Unsupported: this kernel has
// no keyrings, or doesn't let this process at them.
func (k *Keyring) Keep(b []byte, ttl time.Duration) error {
	// Who makes a key must possess it to say who else gets at it. What systemd starts has a session
	// apart from its user's keyring, so that this thread is given the keyring for the moment.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const user, thread = unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING
	if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, user, thread, 0, 0); err != nil {
		return errs.Wrap(errs.Unsupported, err, "use the kernel's keyring of this user")
	}
	id, err := unix.AddKey(keyType, k.name, b, user)
	if err == nil {
		err = errors.Join(unix.KeyctlSetperm(id, perm), endIn(id, ttl))
		if err != nil {
			err = errors.Join(err, k.Forget())
		}
	}
	if _, unlinkErr := unix.KeyctlInt(unix.KEYCTL_UNLINK, user, thread, 0, 0); unlinkErr != nil {
		err = errors.Join(err, unlinkErr)
	}
	if err != nil {
		return errs.Wrap(errs.Unsupported, err, "put a key into the kernel's keyring")
	}
	return nil
}

// endIn has the kernel forget a key after ttl.
func endIn(id int, ttl time.Duration) error {
	_, err := unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, max(int(ttl/time.Second), 1), 0, 0)
	return err
}

// Recall returns what is kept. NotFound: nothing is, or not any more.
func (k *Keyring) Recall() ([]byte, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, k.name, 0)
	if err != nil {
		return nil, errs.Wrap(errs.NotFound, err, "look into the kernel's keyring")
	}
	b := make([]byte, maxKept)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b, 0)
	if err != nil || n > len(b) {
		return nil, errs.Wrap(errs.NotFound, err, "read from the kernel's keyring")
	}
	return b[:n], nil
}

// Forget keeps nothing any more.
func (k *Keyring) Forget() error {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, k.name, 0)
	if err != nil {
		return nil // it isn't there
	}
	_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "take a key out of the kernel's keyring")
	}
	return nil
}
