package blob

import (
	"strings"
	"unicode/utf8"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	maxKeyBytes     = 1024 // S3's limit
	maxElementBytes = 255  // the file driver's: NAME_MAX of the common file systems
)

// CheckKey returns an Invalid error unless key is one that every driver can hold: a relative path
// of 1 to 1024 bytes of UTF-8, whose elements are 1 to 255 bytes long and none of them "." or "..",
// without NUL.
//
// One rule concerns two keys and can't be checked here: no key may continue another one after a
// slash ("a" beside "a/b"), because a directory can't hold that. The file and mem drivers refuse it
// as Invalid.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errs.New(errs.Invalid, "empty object key")
	case len(key) > maxKeyBytes:
		return errs.New(errs.Invalid, "object key of %d bytes, more than %d", len(key), maxKeyBytes)
	case !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0:
		return errs.New(errs.Invalid, "object key %q is not plain UTF-8", key)
	}
	for element := range strings.SplitSeq(key, "/") {
		if element == "" || element == "." || element == ".." || len(element) > maxElementBytes {
			return errs.New(errs.Invalid, "object key %q has the bad element %q", key, element)
		}
	}
	return nil
}
