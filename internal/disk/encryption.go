package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"maps"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// KEK is a key-encryption key: it wraps the key under which a disk's data keys are in its head.
// What was wrapped for one uid must not unwrap for another. Package kek has those from files and
// commands. Errors: Denied (it is the wrong key), Unavailable.
type KEK interface {
	ID() string // for people; tells keys apart without telling anything of them
	Wrap(ctx context.Context, uid string, secret []byte) ([]byte, error)
	Unwrap(ctx context.Context, uid string, wrapped []byte) ([]byte, error)
}

// diskKeys are the keys of an attached disk. They don't change once it is attached.
type diskKeys struct {
	own      *format.DataKey    // encrypts what is written; nil: nothing does
	unlocked *format.Encryption // what the keys came from
}

// firstKeyID is the id of the data key that a disk is made with.
const firstKeyID = 1

// Unlock returns the data keys of a head's lineage; none if the disk isn't encrypted, whatever the
// key. Denied if it is and the key is nil or another one.
func Unlock(ctx context.Context, h *format.Head, key KEK) (format.Keys, error) {
	e := h.Encryption
	if e == nil {
		return nil, nil
	}
	if key == nil {
		return nil, errs.New(errs.Denied,
			"disk %s is encrypted, its key wrapped by %s, and no key was given", h.ID, e.KEK).
			WithRemedy("give the key: --key-file FILE or --key-command CMD")
	}
	uid, err := parseUID(h.UID)
	if err != nil {
		return nil, err
	}
	bundle, err := key.Unwrap(ctx, h.UID, e.Wrapped)
	if err == nil && len(bundle) != format.KeyLen {
		err = errs.New(errs.Denied, "the unwrapped key has %d bytes and not %d", len(bundle),
			format.KeyLen)
	}
	var keys format.Keys
	if err == nil {
		keys, err = e.OpenKeys(uid, [format.KeyLen]byte(bundle))
	}
	if errs.Is(err, errs.Denied) {
		return nil, errs.Wrap(errs.Denied, err,
			"disk %s: wrong key, which is %s where the disk's key was wrapped by %s",
			h.ID, key.ID(), e.KEK).
			WithRemedy("give the key that the disk was made with, or the last it was rekeyed to")
	}
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "unlock disk %s", h.ID)
	}
	return keys, nil
}

// encrypt gives a head of a new disk a data key of its own, beside those of its ancestors.
func encrypt(ctx context.Context, h *format.Head, inherited format.Keys, key KEK) error {
	uid, err := parseUID(h.UID)
	if err != nil {
		return err
	}
	keys := maps.Clone(inherited)
	if keys == nil {
		keys = format.Keys{}
	}
	keys[h.UID] = format.NewDataKey(uid, firstKeyID, newSecret())
	return wrapKeys(ctx, h, keys, firstKeyID, key)
}

// wrapKeys puts keys into a head, under a key-encryption key. It checks that the key gives them
// back.
func wrapKeys(ctx context.Context, h *format.Head, keys format.Keys, id uint32, key KEK) error {
	uid, err := parseUID(h.UID)
	if err != nil {
		return err
	}
	bundle := newSecret()
	e := &format.Encryption{Cipher: format.CipherName, KeyID: id, KEK: key.ID()}
	if e.Keys, err = format.SealKeys(keys, uid, id, bundle); err != nil {
		return err
	}
	if e.Wrapped, err = key.Wrap(ctx, h.UID, bundle[:]); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "wrap the key of disk %s", h.ID)
	}
	back, err := key.Unwrap(ctx, h.UID, e.Wrapped)
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "unwrap the key of disk %s again", h.ID)
	}
	if !bytes.Equal(back, bundle[:]) {
		return errs.New(errs.Denied,
			"the key of disk %s is another one after wrap and unwrap by %s", h.ID, key.ID()).
			WithRemedy("see that the command prints what it unwraps, and nothing else")
	}
	if h.Encryption == nil {
		h.Features = append(h.Features[:len(h.Features):len(h.Features)], format.FeatureEncryption)
	}
	h.Encryption = e
	return nil
}

// newSecret returns 256 random bits.
func newSecret() (s [format.KeyLen]byte) {
	_, _ = rand.Read(s[:]) // it ends the program rather than to fail
	return s
}

// Rekey wraps a disk's data keys under another key-encryption key. Nothing else is rewritten, and a
// writer goes on undisturbed. What the old key can still open are older versions of the head, and
// the disk's forks, which have their own copies of the keys.
//
// Errors: NotFound (no disk), Invalid (it isn't encrypted), Denied (old is the wrong key).
func Rekey(
	ctx context.Context, store blob.Store, path string, old, next KEK,
) (*format.Head, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	client := oneShot(store)
	h, etag, err := client.LoadHead(ctx, path)
	for range maxHeadRaces {
		if err != nil {
			return nil, err
		}
		if h.Encryption == nil {
			return nil, errs.New(errs.Invalid, "disk %s is not encrypted", path).
				WithRemedy("fork it with --encrypt, or copy it to a disk that is")
		}
		keys, err := Unlock(ctx, h, old)
		if err != nil {
			return nil, err
		}
		if err := wrapKeys(ctx, h, keys, h.Encryption.KeyID, next); err != nil {
			return nil, err
		}
		h.Nonce, h.Updated = newNonce(), now()
		cur, tag, serr := client.SwapHead(ctx, path, h, etag)
		if !errs.Is(serr, errs.Conflict) {
			return cur, serr
		}
		h, etag = cur, tag // its writer was faster
	}
	return nil, errs.New(errs.Conflict, "the head of %s changes all the time", path).
		WithRemedy("try again")
}

// sealer returns the key of a new log object or segment of ours; nil on a disk in the clear. It
// notes the key in the object's header, which has kind, epoch and sequence number already. It is
// called once per object: the nonce is fresh with every call, and with it the key.
func (d *Disk) sealer(h *format.LogHeader) (*format.ObjectKey, error) {
	if d.keys.own == nil {
		return nil, nil
	}
	h.Nonce, h.Cipher, h.KeyID = format.NewObjectNonce(), format.CipherAES256GCM, d.keys.own.ID()
	return d.keys.own.Object(h.Kind, h.Epoch, h.Seq, h.Nonce)
}

// sealedMode refuses to write an encrypted disk in a mode that keeps writes elsewhere than in log
// objects: only those are encrypted.
func sealedMode(h *format.Head) error {
	if h.Encryption == nil || h.Mode == format.ModeDurable {
		return nil
	}
	return errs.New(errs.Unsupported,
		"disk %s is encrypted, and mode %s would keep its writes in the clear on this host",
		h.ID, h.Mode).
		WithRemedy("use mode %s for encrypted disks", format.ModeDurable)
}
