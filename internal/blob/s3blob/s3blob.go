// Package s3blob is an object store behind the S3 API: a bucket, or a prefix of one.
//
// Invariants:
//   - No request is ever repeated behind the caller's back: the SDK's retries are off. A conditional write
//     that was repeated could lose against itself.
//   - What isn't known is Unavailable: a timeout, a cut connection, a 5xx, and S3's 409, which says that
//     another write was under way. Conflict is only what the store said for certain (412).
package s3blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Store is a bucket, or a prefix of one. It is safe for concurrent use.
type Store struct {
	client    *s3.Client
	transport *http.Transport
	bucket    string
	prefix    string // empty, or with a slash at its end
}

var _ blob.Store = (*Store)(nil)

// New returns a store. It makes no request yet; blob probes tell whether the bucket is there and works.
func New(cfg Config) (*Store, error) {
	transport, err := cfg.transport()
	if err != nil {
		return nil, err
	}
	options := s3.Options{
		Region:                     cfg.Region,
		Credentials:                credentials.NewStaticCredentialsProvider(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken),
		HTTPClient:                 &http.Client{Transport: transport},
		UsePathStyle:               cfg.PathStyle,
		Retryer:                    aws.NopRetryer{},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		// Else every download logs that it carried no checksum of the SDK's.
		DisableLogOutputChecksumValidationSkipped: true,
	}
	if cfg.Endpoint != "" {
		options.BaseEndpoint = aws.String(cfg.Endpoint)
	}
	s := &Store{client: s3.New(options), transport: transport, bucket: cfg.Bucket}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	return s, nil
}

// Close implements blob.Store.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if err := blob.CheckKey(key); err != nil {
		return blob.Object{}, err
	}
	o, err := s.get(ctx, key, header(r))
	if !errs.Is(err, errs.Invalid) || r.Whole() || r.Offset > 0 {
		if err == nil && r.Offset >= 0 && r.Length == 0 {
			return resolveNone(o, r)
		}
		return o, err
	}
	// No range of an empty object can be asked for over HTTP, so this may just be one.
	whole, wholeErr := s.get(ctx, key, "")
	if wholeErr != nil || whole.Size > 0 {
		return blob.Object{}, errors.Join(err, wholeErr)
	}
	return whole, nil
}

// resolveNone answers a range of no bytes, for which one byte was asked.
func resolveNone(o blob.Object, r blob.Range) (blob.Object, error) {
	if _, _, err := r.Resolve(o.Size); err != nil {
		return blob.Object{}, err
	}
	o.Data = nil
	return o, nil
}

// header returns a range as HTTP writes it, "" for a whole object.
func header(r blob.Range) string {
	switch {
	case r.Whole():
		return ""
	case r.Offset < 0:
		return fmt.Sprintf("bytes=%d", r.Offset)
	case r.Length < 0:
		return fmt.Sprintf("bytes=%d-", r.Offset)
	default:
		// There's no range of no bytes; one byte tells the size and the ETag, too.
		return fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+max(r.Length, 1)-1)
	}
}

func (s *Store) get(ctx context.Context, key, byteRange string) (blob.Object, error) {
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(key)}
	if byteRange != "" {
		in.Range = &byteRange
	}
	out, err := s.client.GetObject(ctx, in)
	if err != nil {
		return blob.Object{}, s.failure(err, "get object %s", key)
	}
	defer out.Body.Close()
	data := make([]byte, aws.ToInt64(out.ContentLength))
	if _, err := io.ReadFull(out.Body, data); err != nil {
		return blob.Object{}, errs.Wrap(errs.Unavailable, err, "read object %s", key)
	}
	o := blob.Object{Data: data, ETag: etag(out.ETag), Size: int64(len(data))}
	if out.ContentRange != nil {
		_, total, _ := strings.Cut(*out.ContentRange, "/")
		if o.Size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return blob.Object{}, errs.Wrap(errs.Unavailable, err, "size of object %s", key)
		}
	}
	return o, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, &s3.PutObjectInput{})
}

// PutIfAbsent implements blob.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, &s3.PutObjectInput{IfNoneMatch: aws.String("*")})
}

// PutIfMatch implements blob.Store.
func (s *Store) PutIfMatch(ctx context.Context, key string, body []byte, match blob.ETag) (blob.ETag, error) {
	return s.put(ctx, key, body, &s3.PutObjectInput{IfMatch: aws.String(`"` + string(match) + `"`)})
}

func (s *Store) put(ctx context.Context, key string, body []byte, in *s3.PutObjectInput) (blob.ETag, error) {
	if err := blob.CheckKey(key); err != nil {
		return "", err
	}
	in.Bucket, in.Key = &s.bucket, s.key(key)
	in.Body, in.ContentLength = bytes.NewReader(body), aws.Int64(int64(len(body)))
	out, err := s.client.PutObject(ctx, in)
	if err != nil {
		return "", s.failure(err, "put object %s", key)
	}
	return etag(out.ETag), nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.key(key)})
	if err = s.failure(err, "delete object %s", key); errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix, startAfter string, yield func(blob.Entry) bool) error {
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.key(prefix)}
	if startAfter != "" {
		in.StartAfter = s.key(startAfter)
	}
	for {
		out, err := s.client.ListObjectsV2(ctx, in)
		if err != nil {
			return s.failure(err, "list %q", prefix)
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
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

func (s *Store) key(key string) *string { return aws.String(s.prefix + key) }

func etag(quoted *string) blob.ETag { return blob.ETag(strings.Trim(aws.ToString(quoted), `"`)) }
