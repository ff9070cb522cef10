// Package s3blob is an object store behind the S3 API: a bucket, or a prefix of one.
//
// Invariants:
//   - No request is repeated behind the caller's back: the SDK's retries are off. A conditional
//     write that was repeated could lose against itself. One whose key the store refused has done
//     nothing, and is sent again if there is another key.
//   - What isn't known is Unavailable: a timeout, a cut connection, a 5xx, and S3's 409, which says
//     that another write was under way. Conflict is only what the store said for certain (412).
//   - An answer is believed only if it has all that S3 promises of one. What comes between, such as
//     proxies, portals and ingresses, answers with every status there is; without S3's own document
//     that is Unavailable.
//   - A small object that is read whole is the version that its ETag names, where the store's ETags
//     are MD5s. A part of an object can't be compared: read what is replaced in place whole.
package s3blob

import (
	"bytes"
	"context"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Store is a bucket, or a prefix of one. It is safe for concurrent use.
type Store struct {
	client    *s3.Client
	transport *http.Transport
	keys      Keys
	bucket    string
	prefix    string // empty, or with a slash at its end
	where     string // the endpoint, for people
	tags      tags
}

var _ blob.Store = (*Store)(nil)

// New returns a store. It makes no request yet; blob probes tell whether the bucket is there and
// works.
//
// Its keys are those of cfg.Keys. Without these and without a key in cfg those are used that the
// SDK's usual chain finds: environment, shared files and profile, web identity, container, the
// host's metadata service. They are kept until they expire or the store refuses them.
func New(cfg Config) (*Store, error) {
	transport, err := cfg.Transport()
	if err != nil {
		return nil, err
	}
	s := &Store{transport: transport, keys: cfg.Keys, bucket: cfg.Bucket, where: cfg.Endpoint}
	if s.keys == nil {
		s.keys = newAccess(cfg)
	}
	options := s3.Options{
		Region:      cfg.Region,
		Credentials: provider{s.keys}, HTTPSignerV4: &signer{},
		// A redirect is an answer like others: who follows one takes a page for the store.
		HTTPClient: &http.Client{Transport: transport,
			CheckRedirect: func(*http.Request,
				[]*http.Request) error {
				return http.ErrUseLastResponse
			}},
		APIOptions:                 []func(*middleware.Stack) error{disbelieve{}.addTo},
		UsePathStyle:               cfg.PathStyle,
		Retryer:                    aws.NopRetryer{},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		// it would write to standard error, such as that a download has no checksum of the SDK's
		Logger: logging.Nop{},
	}
	if cfg.Endpoint != "" {
		options.BaseEndpoint = aws.String(cfg.Endpoint)
	}
	if s.where == "" {
		s.where = "of S3 in " + cfg.Region
	}
	s.client = s3.New(options)
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

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, &s3.PutObjectInput{})
}

// PutIfAbsent implements blob.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, &s3.PutObjectInput{IfNoneMatch: aws.String("*")})
}

// PutIfMatch implements blob.Store.
func (s *Store) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	return s.put(ctx, key, body, &s3.PutObjectInput{IfMatch: aws.String(`"` + string(match) + `"`)})
}

func (s *Store) put(ctx context.Context, key string, body []byte,
	in *s3.PutObjectInput) (blob.ETag, error) {
	if err := blob.CheckKey(key); err != nil {
		return "", err
	}
	in.Bucket, in.Key = &s.bucket, s.key(key)
	// else a store may guess, and a page can't be told by its type
	in.ContentType = aws.String("application/octet-stream")
	in.ContentLength = aws.Int64(int64(len(body)))
	var tag blob.ETag
	err := s.again(ctx, func(ctx context.Context) error {
		in.Body = bytes.NewReader(body)
		out, err := s.client.PutObject(ctx, in)
		if err != nil {
			return s.failure(err, "put object %s", key)
		}
		tag = etag(aws.ToString(out.ETag))
		return nil
	})
	return tag, err
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	err := s.again(ctx, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx,
			&s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.key(key)})
		return s.failure(err, "delete object %s", key)
	})
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

func (s *Store) key(key string) *string { return aws.String(s.prefix + key) }
