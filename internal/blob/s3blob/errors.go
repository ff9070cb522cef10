package s3blob

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// failure gives what became of a request its kind, its words and its remedy; nil for nil.
func (s *Store) failure(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	var r *refusal
	if errors.As(err, &r) {
		return s.refused(r, format, args...)
	}
	var c *CredentialsError
	if errors.As(err, &c) {
		kind := errs.Denied
		if c.again {
			kind = errs.Unavailable
		}
		return errs.Wrap(kind, c, "no credentials for bucket %s", s.bucket).
			WithRemedy(credentialsRemedy)
	}
	var none *keyError
	if errors.As(err, &none) {
		return errs.Wrap(errs.KindOf(none.cause), none.cause, "no credentials for bucket %s",
			s.bucket)
	}
	return errs.Wrap(errs.Unavailable, plain(err), format, args...)
}

func (s *Store) refused(r *refusal, format string, args ...any) error {
	kind := r.kind()
	cause := error(r)
	if kind == errs.Unavailable && (throttles(r.code, r.status) || r.after > 0) {
		cause = &blob.Throttled{After: r.after, Cause: r}
	}
	e := errs.Wrap(kind, cause, format, args...)
	if r.why != "" || r.code == "" {
		return e.WithRemedy("%s", s.strangerRemedy(r.status))
	}
	switch r.code {
	case "NoSuchBucket":
		return errs.Wrap(kind, cause, "bucket %s does not exist", s.bucket).
			WithRemedy("create the bucket %s, or correct the store's URL", s.bucket)
	case "InvalidBucketName":
		return errs.Wrap(kind, cause, "%q is no name of a bucket", s.bucket).
			WithRemedy(
				"correct the store's URL: a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
		"IllegalLocationConstraintException":
		return errs.Wrap(kind, cause, "bucket %s is in another region or at another endpoint",
			s.bucket).
			WithRemedy("set the bucket's region in the store's URL (?region=…)")
	case "RequestTimeTooSkewed":
		return e.WithRemedy("set this host's clock")
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return e.WithRemedy("%s", s.keys.Remedy(false))
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired":
		return e.WithRemedy("%s", s.keys.Remedy(true))
	}
	switch kind {
	case errs.Denied:
		return e.WithRemedy(
			"let these credentials get, put, delete and list objects in bucket %s: look at its policy and at theirs", s.bucket)
	case errs.Exhausted:
		return e.WithRemedy("make room in bucket %s, or raise its quota", s.bucket)
	}
	return e
}

// strangerRemedy is for an answer that isn't the store's.
func (s *Store) strangerRemedy(status int) string {
	switch status {
	case http.StatusProxyAuthRequired:
		return "a proxy asks for its own credentials: correct HTTPS_PROXY, or reach the store without it (NO_PROXY)"
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return "something on the way to " + s.where +
			" redirects, which is never followed: correct the endpoint, or what is between"
	}
	return "something between here and the store answers in its place: check the endpoint " +
		s.where + ", and proxies and gateways on the way"
}

// plain returns what went wrong without the SDK's story of how it came to know.
func plain(err error) error {
	var unread *smithy.DeserializationError
	if errors.As(err, &unread) {
		for cause := unread.Err; cause != nil; cause = errors.Unwrap(cause) {
			err = cause
		}
		return fmt.Errorf("an answer that can't be read: %w", err)
	}
	var cancelled *smithy.CanceledError
	if errors.As(err, &cancelled) {
		return fmt.Errorf("no answer: %w", cancelled.Err)
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		err = send.Err
	}
	var address *url.Error // it repeats the request
	if errors.As(err, &address) {
		err = address.Err
	}
	return err
}

// throttles reports whether an answer asks for fewer requests. A 503 without a code of S3's is a
// proxy's, and may mean anything; if it says when to come back, it is taken for one that does.
func throttles(code string, status int) bool {
	switch code {
	case "SlowDown", "TooManyRequests", "Throttling", "ThrottlingException", "RequestLimitExceeded",
		"RequestThrottled", "BandwidthLimitExceeded":
		return true
	}
	return status == http.StatusTooManyRequests
}

// kind is what an answer means. Only S3's own document is the store's word: what has none is
// Unavailable, whatever its status. What the store refuses until a person has changed something is
// Denied, for which a disk in use waits, while a command tells it at once. That a bucket is missing
// is so, too: to take it for a missing object could start a disk anew.
func (r *refusal) kind() errs.Kind {
	if r.code == "" || r.why != "" {
		return errs.Unavailable
	}
	switch r.code {
	case "NoSuchKey":
		return errs.NotFound
	case "PreconditionFailed":
		return errs.Conflict
	case "InvalidRange", "KeyTooLongError", "EntityTooLarge":
		return errs.Invalid
	case "NotImplemented":
		return errs.Unsupported
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded",
		"InsufficientStorage":
		return errs.Exhausted
	// it got damaged on the way
	case "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "RequestTimeout":
		return errs.Unavailable
	// passes by itself: the SDK signs by the store's clock from then on
	case "RequestTimeTooSkewed", "TemporaryRedirect":
		return errs.Unavailable
	}
	return kindOfStatus(r.code, r.status)
}

// kindOfStatus is the kind of an answer of S3's whose code says no more than its status.
func kindOfStatus(code string, status int) errs.Kind {
	switch {
	case throttles(code, status), status == http.StatusConflict,
		status == http.StatusRequestTimeout:
		return errs.Unavailable
	case status == http.StatusInsufficientStorage:
		return errs.Exhausted
	case status >= 300 && status < 500:
		return errs.Denied
	default:
		return errs.Unavailable
	}
}
