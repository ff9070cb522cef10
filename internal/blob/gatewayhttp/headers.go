package gatewayhttp

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// QuoteETag returns an ETag as HTTP writes it.
func QuoteETag(etag blob.ETag) string { return `"` + url.QueryEscape(string(etag)) + `"` }

// UnquoteETag undoes QuoteETag.
func UnquoteETag(s string) (blob.ETag, error) {
	inner, ok := strings.CutPrefix(s, `"`)
	inner, okEnd := strings.CutSuffix(inner, `"`)
	etag, err := url.QueryUnescape(inner)
	if !ok || !okEnd || err != nil {
		return "", errs.New(errs.Invalid, "bad etag %q", s)
	}
	return blob.ETag(etag), nil
}

// parseRange understands the single ranges that a blob.Range can say.
func parseRange(s string) (blob.Range, error) {
	if s == "" {
		return blob.All(), nil
	}
	bad := errs.New(errs.Invalid, "bad range %q", s)
	spec, ok := strings.CutPrefix(s, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return blob.Range{}, bad
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n <= 0 {
			return blob.Range{}, bad
		}
		return blob.Range{Offset: -n, Length: -1}, nil
	}
	offset, err := strconv.ParseInt(first, 10, 64)
	if err != nil || offset < 0 {
		return blob.Range{}, bad
	}
	if last == "" {
		return blob.Range{Offset: offset, Length: -1}, nil
	}
	end, err := strconv.ParseInt(last, 10, 64)
	if err != nil || end < offset {
		return blob.Range{}, bad
	}
	return blob.Range{Offset: offset, Length: end - offset + 1}, nil
}
