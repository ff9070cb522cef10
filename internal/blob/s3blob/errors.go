package s3blob

import (
	"errors"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

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
	status := 0
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) {
		status = resp.HTTPStatusCode()
	}
	e := errs.Wrap(kindOf(code, status), err, format, args...)
	switch code {
	case "NoSuchBucket":
		return e.WithRemedy("create the bucket %s, or correct the store's URL", s.bucket)
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return e.WithRemedy("set the bucket's region in the store's URL (?region=…)")
	case "RequestTimeTooSkewed":
		return e.WithRemedy("set this host's clock")
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return e.WithRemedy("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	return e
}

// kindOf maps S3's code and HTTP status, either of which may be missing, to a kind.
func kindOf(code string, status int) errs.Kind {
	switch code {
	case "NoSuchBucket", "PermanentRedirect", "InvalidRange", "KeyTooLongError", "EntityTooLarge":
		return errs.Invalid // NoSuchBucket, too: to take it for a missing object could start a disk anew
	case "RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted":
		return errs.Unavailable
	case "NotImplemented":
		return errs.Unsupported
	case "QuotaExceeded":
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
