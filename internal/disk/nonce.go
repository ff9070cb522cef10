package disk

import (
	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// newNonce returns a fresh ULID as text, and newID one in binary.
func newNonce() string { return ulid.Make().String() }
func newID() format.ID { return format.ID(ulid.Make()) }
func parseUID(uid string) (format.ID, error) {
	u, err := ulid.ParseStrict(uid)
	if err != nil {
		return format.ID{}, errs.Wrap(errs.Corrupt, err, "disk uid %q", uid)
	}
	return format.ID(u), nil
}
