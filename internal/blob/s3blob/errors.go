package s3blob

import (
	"errors"
	"net/http"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// failure gives an answer of the store its kind; nil for nil.
func (s *Store) failure(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	status, after := 0, time.Duration(0)
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) {
		status = resp.HTTPStatusCode()
		if resp.Response != nil && resp.Response.Response != nil {
			after = blob.RetryAfter(resp.Response.Header, time.Now())
		}
	}
	kind := kindOf(code, status)
	if throttles(code, status) || kind == errs.Unavailable && after > 0 {
		err = &blob.Throttled{After: after, Cause: err}
	}
	e := errs.Wrap(kind, err, format, args...)
	switch code {
	case "NoSuchBucket":
		return e.WithRemedy("create the bucket %s, or correct the store's URL", s.bucket)
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return e.WithRemedy("set the bucket's region in the store's URL (?region=…)")
	case "RequestTimeTooSkewed":
		return e.WithRemedy("set this host's clock")
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return e.WithRemedy("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case "ExpiredToken", "InvalidToken":
		return e.WithRemedy("get a new session token, and start again with it in AWS_SESSION_TOKEN")
	}
	switch kind {
	case errs.Denied:
		return e.WithRemedy("let these credentials get, put and list objects in bucket %s: look at its policy and at theirs", s.bucket)
	case errs.Exhausted:
		return e.WithRemedy("make room in bucket %s, or raise its quota", s.bucket)
	}
	return e
}

// throttles reports whether an answer asks for fewer requests. A 503 without a code of S3's is a proxy's, and may
// mean anything; if it says when to come back, it is taken for one that does.
func throttles(code string, status int) bool {
	switch code {
	case "SlowDown", "TooManyRequests", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "BandwidthLimitExceeded":
		return true
	}
	return status == http.StatusTooManyRequests
}

// kindOf maps S3's code and HTTP status, either of which may be missing, to a kind.
func kindOf(code string, status int) errs.Kind {
	switch code {
	case "NoSuchBucket", "PermanentRedirect", "InvalidRange", "KeyTooLongError", "EntityTooLarge":
		return errs.Invalid // NoSuchBucket, too: to take it for a missing object could start a disk anew
	case "RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted", "TooManyRequests", "Throttling",
		"ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "BandwidthLimitExceeded":
		return errs.Unavailable
	case "NotImplemented":
		return errs.Unsupported
	case "ExpiredToken":
		return errs.Denied
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage":
		return errs.Exhausted
	}
	switch {
	case status == http.StatusNotFound:
		return errs.NotFound
	case status == http.StatusPreconditionFailed:
		return errs.Conflict
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return errs.Denied
	case status == http.StatusInsufficientStorage:
		return errs.Exhausted
	case status == http.StatusNotImplemented:
		return errs.Unsupported
	case status == http.StatusConflict, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return errs.Unavailable
	case status >= 400 && status < 500:
		return errs.Invalid
	default: // 5xx, no answer at all, an answer that can't be read
		return errs.Unavailable
	}
}
