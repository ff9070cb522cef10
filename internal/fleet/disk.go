package fleet

import (
	"encoding/json"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// DiskKind says where a machine's disk is.
type DiskKind string

// DiskInStore is a disk whose truth is in the object store: it can be attached on any worker.
const DiskInStore DiskKind = "store"

// Disk is a machine's disk. Its JSON is the bare URL for a disk in the store, which is what every
// release reads, and an object for other kinds.
type Disk struct {
	Kind DiskKind
	URL  string
}

// StoreDisk returns the disk at a URL in the object store.
func StoreDisk(url string) Disk { return Disk{Kind: DiskInStore, URL: url} }

// diskJSON is the form of disks that aren't in the store.
type diskJSON struct {
	Kind DiskKind `json:"kind"`
	URL  string   `json:"url"`
}

// MarshalJSON implements json.Marshaler.
func (d Disk) MarshalJSON() ([]byte, error) {
	if d.Kind == DiskInStore || d == (Disk{}) {
		return json.Marshal(d.URL)
	}
	return json.Marshal(diskJSON(d))
}

// UnmarshalJSON implements json.Unmarshaler. Unsupported: a kind of disk that a newer release has
// made.
func (d *Disk) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var url string
		if err := json.Unmarshal(data, &url); err != nil {
			return err
		}
		*d = Disk{}
		if url != "" {
			*d = StoreDisk(url)
		}
		return nil
	}
	var wire diskJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	if wire.Kind != DiskInStore {
		return errs.New(errs.Unsupported, "a disk of kind %q", wire.Kind).
			WithRemedy("a newer release has made it: run that")
	}
	*d = Disk(wire)
	return nil
}
