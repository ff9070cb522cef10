package table

import (
	"iter"

	"github.com/sluice-platform/sluice/internal/state"
)

// View is the mirrored keys as they were at one revision. It never changes, and is safe for concurrent use.
type View struct {
	revision int64
	sheet    sheet
}

// Revision is the revision at which the view is the truth; 0 before a mirror's first listing.
func (v *View) Revision() int64 { return v.revision }

// Len is the number of keys.
func (v *View) Len() int { return v.sheet.keys }

// Get returns one key. The value is shared: read it only.
func (v *View) Get(key string) (state.KV, bool) { return v.sheet.get(key) }

// Scan yields the keys under prefix in byte order. The values are shared: read them only.
func (v *View) Scan(prefix string) iter.Seq[state.KV] { return v.sheet.scan(prefix) }
