package format

import (
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// FeatureEncryption is the incompatible feature of an encrypted disk: who doesn't know it can't
// read the disk, and would write it in the clear.
const FeatureEncryption = "encryption"

const (
	bundleEntry = 16 + 4 + KeyLen
	maxWrapped  = 64 << 10 // bytes that a key-encryption key may make of KeyLen
)

// Encryption is the part of a head that says how its disk is encrypted: the data keys of its whole
// lineage under a bundle key, which is fresh with every bundle, and the bundle key under a
// key-encryption key.
type Encryption struct {
	Cipher  string `json:"cipher"`
	KeyID   uint32 `json:"key_id"`  // of the data key that the disk writes with
	KEK     string `json:"kek"`     // which key-encryption key that is, for people
	Wrapped []byte `json:"wrapped"` // the bundle key, as the key-encryption key has made it
	Keys    []byte `json:"keys"`    // the data keys under the bundle key
}

func (e *Encryption) check() error {
	switch {
	case e.Cipher != CipherName:
		return unsupported("cipher %q", e.Cipher)
	case e.KeyID == 0 || len(e.Wrapped) == 0 || len(e.Wrapped) > maxWrapped || len(e.KEK) > 256:
		return corrupt("head: bad encryption with key %d of %d bytes", e.KeyID, len(e.Wrapped))
	case len(e.Keys) < bundleEntry+tagLen || (len(e.Keys)-tagLen)%bundleEntry != 0 ||
		(len(e.Keys)-tagLen)/bundleEntry > MaxLineage:
		return corrupt("head: bundle of keys of %d bytes", len(e.Keys))
	}
	return nil
}

// SealKeys returns the bundle of a lineage's keys for the head of the disk uid. The bundle key is
// fresh: it encrypts this one bundle only.
func SealKeys(keys Keys, uid ID, keyID uint32, bundleKey [KeyLen]byte) ([]byte, error) {
	plain := make([]byte, 0, len(keys)*bundleEntry)
	for _, name := range sortedNames(keys) {
		k := keys[name]
		plain = append(plain, k.disk[:]...)
		plain = le.AppendUint32(plain, k.id)
		plain = append(plain, k.secret[:]...)
	}
	aead, err := newGCM(bundleKey[:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, make([]byte, nonceLen), plain, bundleAAD(uid, keyID)), nil
}

// OpenKeys opens the bundle of the disk uid. Denied if the bundle key is not that of this bundle.
func (e *Encryption) OpenKeys(uid ID, bundleKey [KeyLen]byte) (Keys, error) {
	aead, err := newGCM(bundleKey[:])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, nonceLen), e.Keys, bundleAAD(uid, e.KeyID))
	if err != nil {
		return nil, errs.Wrap(errs.Denied, err, "the key doesn't open the disk's bundle of keys")
	}
	keys := make(Keys, len(plain)/bundleEntry)
	for b := plain; len(b) >= bundleEntry; b = b[bundleEntry:] {
		k := &DataKey{id: le.Uint32(b[16:])}
		copy(k.disk[:], b)
		copy(k.secret[:], b[20:])
		keys[ulid.ULID(k.disk).String()] = k
	}
	if own := keys[ulid.ULID(uid).String()]; own == nil || own.id != e.KeyID {
		return nil, corrupt("the bundle lacks the disk's own key %d", e.KeyID)
	}
	return keys, nil
}

func sortedNames(keys Keys) []string {
	names := make([]string, 0, len(keys))
	for name := range keys {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func bundleAAD(uid ID, keyID uint32) []byte {
	return le.AppendUint32(append([]byte("sluice disk keys v1"), uid[:]...), keyID)
}
