package s3blob

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxCompared bounds the bodies that are compared with their ETag. What is replaced in place, such
// as heads, is far smaller; what is larger is never replaced, and carries checksums of its own.
const maxCompared = 1 << 20

// tags is what is known of a store's ETags. Most stores give an object's MD5.
type tags struct {
	digests atomic.Bool // one was its body's MD5
	opaque  atomic.Bool // one was not, twice: none is compared while none was a digest
}

// compared returns the ETag of a whole object's answer if it has to be its body's MD5, else "". Of
// an upload in parts or with a key of one's own it isn't, and says so.
func (t *tags) compared(o blob.Object, out *s3.GetObjectOutput) string {
	tag := string(o.ETag)
	if len(tag) != hex.EncodedLen(md5.Size) || o.Size > maxCompared ||
		t.opaque.Load() && !t.digests.Load() ||
		strings.HasPrefix(string(out.ServerSideEncryption),
			string(types.ServerSideEncryptionAwsKms)) ||
		aws.ToString(out.SSECustomerAlgorithm) != "" {
		return ""
	}
	if _, err := hex.DecodeString(tag); err != nil {
		return ""
	}
	return strings.ToLower(tag)
}

// untorn returns o, the answer to the read of a whole object, or what is right in its place.
//
// Some stores read an object's ETag and its body one after the other. A write between gives one
// version's ETag and another's body, and who replaces the object by that ETag undoes the other
// write. So an ETag that looks like an MD5, and isn't its body's, is asked for once more. An answer
// that is the same again is believed: then the store's ETags are something else that looks alike.
func (s *Store) untorn(ctx context.Context, key string, o blob.Object, digest string) (
	blob.Object, error) {
	if s.tags.fits(o.Data, digest) {
		return o, nil
	}
	again, tag, err := s.getOnce(ctx, key, blob.All(), header(blob.All()))
	switch {
	case err != nil:
		return blob.Object{}, err
	case tag == "" || s.tags.fits(again.Data, tag):
		return again, nil
	case again.ETag == o.ETag && string(again.Data) == string(o.Data):
		s.tags.opaque.Store(true)
		return again, nil
	}
	return blob.Object{}, errs.New(errs.Unavailable,
		"get object %s: torn: the ETag %s of one version with the body of another", key,
		printable(string(again.ETag))).WithRemedy("%s", s.strangerRemedy(0))
}

// fits reports whether a digest is that of a body, and notes that there are such ETags.
func (t *tags) fits(body []byte, digest string) bool {
	d := md5.Sum(body)
	if hex.EncodeToString(d[:]) != digest {
		return false
	}
	t.digests.Store(true)
	return true
}
