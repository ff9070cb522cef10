package tunnel

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keyring is a worker's keys, as they are in its file. Next is one that peers may have been told
// of, while the interface has Current.
type keyring struct {
	Current wgtypes.Key  `json:"current"`
	Made    time.Time    `json:"made"` // Current
	Next    *wgtypes.Key `json:"next,omitempty"`
}

// ForgetKeys has the next Open make a key of its own, because others may have those of before.
func ForgetKeys(dir string) error {
	err := os.Remove(filepath.Join(dir, keyFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(errs.Internal, err, "forget the tunnel's keys")
	}
	return nil
}

// loadKeys returns the keys of a file; with a first key, if there is no such file.
func loadKeys(file string, now time.Time) (keyring, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		k, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			return keyring{}, errs.Wrap(errs.Internal, err, "make a tunnel key")
		}
		ring := keyring{Current: k, Made: now}
		return ring, ring.save(file)
	}
	if err != nil {
		return keyring{}, errs.Wrap(errs.Internal, err, "read the tunnel's keys")
	}
	var ring keyring
	if err := json.Unmarshal(data, &ring); err != nil || ring.Current == (wgtypes.Key{}) {
		return keyring{}, errs.Wrap(errs.Corrupt, errors.Join(err, errors.New("no key in it")),
			"read the tunnel's keys in %s", file).
			WithRemedy("remove the file: the worker then makes a key, and joins with it")
	}
	return ring, nil
}

func (r keyring) save(file string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the tunnel's keys")
	}
	return atomicfile.Write(file, append(data, '\n'), 0o600)
}

// offered is the key that peers are to be told of.
func (r keyring) offered() wgtypes.Key {
	if r.Next != nil {
		return *r.Next
	}
	return r.Current
}
