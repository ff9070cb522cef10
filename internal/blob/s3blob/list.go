package s3blob

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxEmptyPages is how many pages in a row may have nothing in them but a token.
const maxEmptyPages = 1000

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.key(prefix)}
	l := listing{prefix: s.prefix + prefix, unordered: strings.HasSuffix(s.bucket, directoryBucket),
		tokens: map[string]bool{}}
	if startAfter != "" {
		in.StartAfter = s.key(startAfter)
		l.last = s.prefix + startAfter
	}
	for {
		var out *s3.ListObjectsV2Output
		err := s.again(ctx, func(ctx context.Context) (err error) {
			out, err = s.client.ListObjectsV2(ctx, in)
			return s.failure(err, "list %q", prefix)
		})
		if err != nil {
			return err
		}
		if fault := l.page(out); fault != "" {
			return errs.New(errs.Unavailable, "list %q: not a listing to be believed: %s",
				prefix, fault).
				WithRemedy("%s", s.strangerRemedy(0))
		}
		for _, o := range out.Contents {
			key := strings.TrimPrefix(aws.ToString(o.Key), s.prefix)
			// An object that ends in a slash is some tool's idea of a directory, and none of ours.
			if strings.HasSuffix(key, "/") || key == "" {
				continue
			}
			if !yield(blob.Entry{Key: key, Size: aws.ToInt64(o.Size)}) {
				return nil
			}
		}
		if aws.ToString(out.NextContinuationToken) == "" {
			return nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

// directoryBucket ends the name of a bucket whose listings are in no order, and know no place to
// start after.
const directoryBucket = "--x-s3"

// listing is what has been seen of one so far.
type listing struct {
	prefix    string // of all keys
	last      string // key; all others come after it
	unordered bool
	tokens    map[string]bool
	empty     int // pages in a row
}

// page says what is wrong with the next page, "" for nothing. None of a page is to be used that has
// anything wrong.
func (l *listing) page(out *s3.ListObjectsV2Output) string {
	token := aws.ToString(out.NextContinuationToken)
	switch {
	case out.IsTruncated == nil:
		return "it doesn't say whether it is whole"
	case *out.IsTruncated && token == "":
		return "it is truncated, and has no token to go on with"
	case token != "" && l.tokens[token]:
		return "it has the token of an earlier page, and would never end"
	case aws.ToString(out.Prefix) != "" && *out.Prefix != l.prefix:
		return "it is of the prefix " + printable(*out.Prefix)
	case int(aws.ToInt32(out.KeyCount)) > len(out.Contents)+len(out.CommonPrefixes):
		return "it has fewer keys than it says"
	}
	for _, o := range out.Contents {
		key := aws.ToString(o.Key)
		switch {
		case !strings.HasPrefix(key, l.prefix):
			return "it has the key " + printable(key) + ", which does not begin with the prefix"
		case !l.unordered && key <= l.last:
			return "it has the key " + printable(key) + " after " + printable(l.last)
		case o.Size == nil || *o.Size < 0:
			return "it does not say the size of " + printable(key)
		}
		l.last = key
	}
	l.tokens[token] = true
	if len(out.Contents) > 0 {
		l.empty = 0
	} else if l.empty++; l.empty > maxEmptyPages {
		return "its pages are empty, and do not end"
	}
	return ""
}
