package blob

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Throttled is in the chain of an Unavailable error with which a store asks for fewer requests:
// S3's SlowDown, or HTTP's 429. Who gets one waits, and sends fewer at a time from then on.
type Throttled struct {
	After time.Duration // how long to wait at least, as the store says; 0: it doesn't
	Cause error
}

// Error returns what the store said.
func (t *Throttled) Error() string {
	if t.Cause == nil {
		return "the store asks for fewer requests"
	}
	return t.Cause.Error()
}

// Unwrap returns the answer itself.
func (t *Throttled) Unwrap() error { return t.Cause }

// ThrottledFor reports whether the store has asked for fewer requests, and how long to wait at
// least, from 0 to MaxRetryAfter.
func ThrottledFor(err error) (after time.Duration, ok bool) {
	var t *Throttled
	if !errors.As(err, &t) {
		return 0, false
	}
	return min(max(0, t.After), MaxRetryAfter), true
}

// MaxRetryAfter is the longest wait that a store is granted between two requests, so that one that
// was misconfigured for an hour isn't still waited for after it was put right.
const MaxRetryAfter = 30 * time.Second

// RetryAfter reads the header of that name: seconds, or a date. 0 if it is missing or odd.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
