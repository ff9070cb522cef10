package format

import "time"

// Pin keeps what a disk refers to from being collected, until it is removed or its lease ends. Its
// holder writes it again, by compare-and-swap, to narrow it and to renew its lease.
type Pin struct {
	Version int    `json:"version"`
	ID      string `json:"id"`     // the last element of its key
	Nonce   string `json:"nonce"`  // ULID, fresh with every write
	Holder  string `json:"holder"` // for people
	LeaseMS int64  `json:"lease_ms,omitempty"`
	// it holds all objects of the disk and of its ancestors; else the map under Map
	All bool `json:"all,omitempty"`
	// nil beside All false: an empty map, which needs nothing
	Map     *PinnedMap `json:"map,omitempty"`
	Created time.Time  `json:"created"`
	Renewed time.Time  `json:"renewed"`
}

// PinnedMap is the map that a pin holds.
type PinnedMap struct {
	Checkpoint string     `json:"checkpoint,omitempty"` // for people
	Size       int64      `json:"size"`                 // of the disk, bytes
	Root       *RootRef   `json:"root"`
	Lineage    []Ancestor `json:"lineage"`
}

// MaxLeaseMS is the longest lease, a day: a holder that died keeps things for up to twice as long.
const MaxLeaseMS = 24 * 3_600_000

// DecodePin decodes and checks a pin.
func DecodePin(b []byte) (*Pin, error) {
	var p Pin
	if err := decodeStrict(b, &p, "pin"); err != nil {
		return nil, err
	}
	switch {
	case p.ID == "" || p.Nonce == "":
		return nil, corrupt("pin: id or nonce missing")
	case p.LeaseMS < 0 || p.LeaseMS > MaxLeaseMS:
		return nil, corrupt("pin: bad lease of %d ms", p.LeaseMS)
	case p.All && p.Map != nil:
		return nil, corrupt("pin: of everything and of one map")
	case p.Map == nil:
		return &p, nil
	}
	if p.Map.Root == nil {
		return nil, corrupt("pin: a map without a root")
	}
	return &p, checkMap("pin", p.Map.Size, p.Map.Root, p.Map.Lineage)
}
