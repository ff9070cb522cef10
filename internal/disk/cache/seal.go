package cache

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sealedSpace marks the spaces of encrypted disks.
const sealedSpace uint32 = 1 << 31

func (k *Key) sealed() bool { return k.Space&sealedSpace != 0 }

// newSeal returns a cipher under a fresh key.
func newSeal() (cipher.Block, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it ends the program rather than to fail
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "set up AES")
	}
	return block, nil
}

// crypt encrypts or decrypts p in place: a sealed frame's content from block first on. It is
// AES-CTR; a counter begins with the frame's iv, which no two inserts share, and goes on with the
// place in the frame. Authenticity is the checksums': they are of the plain content, and in memory.
func (c *Cache) crypt(p []byte, iv uint64, first int) {
	var counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(counter[:], iv)
	binary.BigEndian.PutUint64(counter[8:], uint64(first)*(BlockSize/aes.BlockSize))
	cipher.NewCTR(c.seal, counter[:]).XORKeyStream(p, p)
}
