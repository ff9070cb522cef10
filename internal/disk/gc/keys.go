package gc

import (
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// object is one object of a disk. There is one in memory for each in the pool, so that its key is
// taken apart.
type object struct {
	format.Key
	size int64
}

// secondLog begins, in marks, the keys of what is in a disk's log store. In there they are below
// <uid>/log/.
const secondLog = "log-store/"

// rel returns the object's key in marks: that below the disk's path, but for what is in a log
// store.
func (o *object) rel() string {
	if o.second() {
		return secondLog + strings.TrimPrefix(o.String(), "log/")
	}
	return o.String()
}

// second reports whether the object is in the disk's log store.
func (o *object) second() bool { return o.Kind == format.KeyRunLog }

// isLog reports whether the object is one of the log, wherever that is.
func (o *object) isLog() bool { return o.Kind == format.KeyLog || o.second() }

func headKey(path string) string { return format.Key{Kind: format.KeyHead}.In(path) }

func checkpointKey(path, name string) string {
	return format.Key{Kind: format.KeyCheckpoint, Name: name}.In(path)
}

// rootKey returns the key of the map root that a head or a document of a lineage refers to.
func rootKey(lineage []format.Ancestor, r *format.RootRef) string {
	return format.MapKey(r.Epoch, r.N, format.RootName).In(lineage[r.Lineage].Path)
}

// isFenceSized reports whether a log object can be a fence: nothing else is that small.
func isFenceSized(size int64) bool { return size <= int64(format.LogHeaderLen(0, 0)) }
