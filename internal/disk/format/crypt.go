package format

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Ciphers, as objects name them.
const (
	CipherNone      uint8 = 0
	CipherAES256GCM uint8 = 1
)

// CipherName is the cipher as heads name it.
const CipherName = "aes-256-gcm"

const (
	// KeyLen is the length of every key, in bytes.
	KeyLen = 32

	tagLen      = 16
	nonceLen    = 12
	trailerLen  = nonceLen + tagLen // of what is under a page key
	headerFrame = 1<<32 - 1         // the nonce of a header, where frames have their index
)

// DataKey encrypts what one disk of a lineage writes: not directly, but through a key of its own
// for every log object and every map checkpoint. Immutable; safe for concurrent use.
type DataKey struct {
	disk   ID
	id     uint32
	secret [KeyLen]byte
}

// NewDataKey returns the data key of a disk. id is at least 1.
func NewDataKey(disk ID, id uint32, secret [KeyLen]byte) *DataKey {
	return &DataKey{disk: disk, id: id, secret: secret}
}

// ID returns the key's id, of those of its disk.
func (k *DataKey) ID() uint32 { return k.id }

// String and GoString keep the secret out of logs.
func (k *DataKey) String() string { return fmt.Sprintf("data key %d", k.id) }

// GoString implements fmt.GoStringer.
func (k *DataKey) GoString() string { return k.String() }

// derive returns the key for one purpose. context says all that tells this purpose from others.
func (k *DataKey) derive(salt, context []byte) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, k.secret[:], salt,
		"sluice disk v1 "+string(context), KeyLen)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "derive a key")
	}
	return newGCM(secret)
}

func newGCM(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "set up AES")
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "set up GCM")
	}
	return aead, nil
}

// ObjectKey encrypts one log object or packed segment. Its GCM nonces are the frames' indexes, each
// used once: the key is new with every object, because the object's nonce is.
type ObjectKey struct {
	aead cipher.AEAD
	id   uint32
	who  [36]byte // disk, key id, epoch, seq
	kind uint8
}

// Object returns the key of one log object or segment. nonce is the one in its header: of an object
// that is to be written, 128 fresh random bits.
func (k *DataKey) Object(kind uint8, epoch, seq uint64, nonce ID) (*ObjectKey, error) {
	o := &ObjectKey{id: k.id, kind: kind}
	copy(o.who[:], k.disk[:])
	le.PutUint32(o.who[16:], k.id)
	le.PutUint64(o.who[20:], epoch)
	le.PutUint64(o.who[28:], seq)
	var err error
	o.aead, err = k.derive(nonce[:], append([]byte{'L', kind}, o.who[:]...))
	return o, err
}

// aad is what a frame is bound to, besides the key.
func (o *ObjectKey) aad(index uint32, flags, blocks uint16) []byte {
	b := append(make([]byte, 0, 64), 'F', o.kind)
	b = append(b, o.who[:]...)
	b = le.AppendUint32(b, index)
	b = le.AppendUint16(b, flags)
	return le.AppendUint16(b, blocks)
}

func (o *ObjectKey) nonce(index uint32) []byte {
	return le.AppendUint32(make([]byte, nonceLen-4, nonceLen), index)
}

// PageKey serves one map checkpoint: it encrypts region pages, and signs directories, segment
// tables and the root, which stay readable to who collects garbage.
type PageKey struct {
	aead cipher.AEAD
	id   uint32
	who  [32]byte // disk, key id, epoch, n
}

// Pages returns the key of the map checkpoint epoch-n.
func (k *DataKey) Pages(epoch uint64, n uint32) (*PageKey, error) {
	p := &PageKey{id: k.id}
	copy(p.who[:], k.disk[:])
	le.PutUint32(p.who[16:], k.id)
	le.PutUint64(p.who[20:], epoch)
	le.PutUint32(p.who[28:], n)
	var err error
	p.aead, err = k.derive(nil, append([]byte{'M'}, p.who[:]...))
	return p, err
}

// aad binds a page to its place, or a root to its header.
func (p *PageKey) aad(what byte, place []byte) []byte {
	b := append(make([]byte, 0, 64), what)
	return append(append(b, p.who[:]...), place...)
}

// random fills b. crypto/rand ends the program rather than to fail.
func random(b []byte) { _, _ = rand.Read(b) }

// NewObjectNonce returns the nonce of an object to be encrypted.
func NewObjectNonce() (id ID) {
	random(id[:])
	return id
}

// Keys are the data keys of a lineage, by the disks' uids. A disk that isn't encrypted has none.
type Keys map[string]*DataKey

// page returns the key of a page of a disk, or nil if it has none.
func (k Keys) page(uid string, epoch uint64, n uint32) (*PageKey, error) {
	key := k[uid]
	if key == nil {
		return nil, nil
	}
	return key.Pages(epoch, n)
}

// Page returns the key that a stored page of the disk uid is under; nil if the disk has none.
func (k Keys) Page(uid string,
	ref PageRef) (*PageKey, error) {
	return k.page(uid, ref.Epoch, ref.N)
}

// Root returns the key that a map root of the disk uid is under; nil if the disk has none.
func (k Keys) Root(uid string,
	ref *RootRef) (*PageKey, error) {
	return k.page(uid, ref.Epoch, ref.N)
}

// Open decrypts a header of a log object or segment of the disk uid, and checks that nobody has
// changed it. It returns the key of the object's frames, nil if they are in the clear.
//
// Errors: Denied (it is encrypted, and there is no key), Corrupt. On an encrypted disk only fences,
// which hold nothing, may be in the clear.
func (k Keys) Open(uid string, h *LogHeader) (*ObjectKey, error) {
	key := k[uid]
	switch {
	case key == nil && h.Cipher == CipherNone, key != nil && h.Cipher == CipherNone && h.IsFence():
		return nil, nil
	case key == nil:
		return nil, noKey("log object")
	case h.Cipher == CipherNone:
		return nil, corrupt("log object is in the clear, and its disk is encrypted")
	case h.Disk != key.disk || h.KeyID != key.id:
		return nil, corrupt("log object is under key %d of another disk", h.KeyID)
	}
	o, err := key.Object(h.Kind, h.Epoch, h.Seq, h.Nonce)
	if err != nil {
		return nil, err
	}
	return o, h.open(o)
}

func noKey(what string) error {
	return errs.New(errs.Denied, "%s is encrypted, and there is no key", what).
		WithRemedy("give the key that the disk was made with")
}

// seal encrypts the end of b from start on, in place, or with clear set only vouches for it, and
// appends the trailer: tag and nonce.
func (p *PageKey) seal(b []byte, start int, clear bool, aad []byte) []byte {
	var nonce [nonceLen]byte
	random(nonce[:])
	if clear {
		b = p.aead.Seal(b, nonce[:], nil, append(aad, b[start:]...))
	} else {
		b = p.aead.Seal(b[:start], nonce[:], b[start:], aad)
	}
	return append(b, nonce[:]...)
}

// open undoes seal. What it returns is not part of stored unless that is in the clear.
func (p *PageKey) open(stored []byte, clear bool, aad []byte) ([]byte, error) {
	if len(stored) < trailerLen {
		return nil, corrupt("%d bytes are too few to be encrypted", len(stored))
	}
	nonce := stored[len(stored)-nonceLen:]
	stored = stored[:len(stored)-nonceLen]
	body, content := stored[:len(stored)-tagLen], []byte(nil)
	var err error
	if clear {
		content = body
		_, err = p.aead.Open(nil, nonce, stored[len(body):], append(aad, body...))
	} else {
		content, err = p.aead.Open(nil, nonce, stored, aad)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "it was changed, or is under another key")
	}
	return content, nil
}
