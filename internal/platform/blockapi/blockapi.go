// Package blockapi is how platformd speaks to blockd: HTTP and JSON on a unix socket of the VM. The
// calls that are the same for any attached disk are diskapi's, below its PathDisk.
//
// Invariants: every call may be repeated. Attaching the same path, generation and holder again
// returns the existing attachment; anything else is a Conflict. A blockd that has ended is not
// started again: the VM ends with it.
package blockapi

import (
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

// Paths on the socket.
const (
	PathInfo    = "/info"    // GET → Info
	PathPrepare = "/prepare" // POST guestapi.StoreAccess
	PathAttach  = "/attach"  // POST Attach → Info
	PathClose   = "/close"   // POST → Info; the disk is closed cleanly
	PathAbandon = "/abandon" // POST → Info; nothing more is written
	// POST; writes out dirty data, so that a close has little to do
	PathSettle = "/settle"
	PathHold   = "/hold" // POST Hold; see disk.HoldIO
	// GET; answers, with an error, when the disk has stopped by itself
	PathWatch = "/watch"
)

// Attach is a request to attach a disk as a block device.
type Attach struct {
	Store      guestapi.StoreAccess `json:"store"`
	Generation fleet.Generation     `json:"generation"`
	Holder     string               `json:"holder"`
}

// Info is the disk's state.
type Info struct {
	Attached bool   `json:"attached"`
	Fenced   bool   `json:"fenced,omitempty"`
	Path     string `json:"path,omitempty"`
	Device   string `json:"device,omitempty"` // the block device
	// SizeBytes is the virtual size.
	SizeBytes   int64            `json:"size_bytes,omitempty"`
	Description Description      `json:"description"`
	Report      fleet.DiskReport `json:"report"`
	Stall       *fleet.DiskStall `json:"stall,omitempty"`
	// Flushes is also told of a disk that was closed.
	Flushes *fleet.DiskFlushes `json:"flushes,omitempty"`
	// Steps has how long the parts of the last attach or close took.
	Steps []guestapi.Step `json:"steps,omitempty"`
}

// StallOf returns a stall in the fleet's words.
func StallOf(s *disk.Stall) *fleet.DiskStall {
	if s == nil {
		return nil
	}
	return &fleet.DiskStall{Since: s.Since, Operation: s.Operation, Kind: string(s.Kind),
		Reason: s.Reason, Remedy: s.Remedy, HeldSince: s.HeldSince}
}

// Hold switches on or off that the disk's requests wait for the store without a limit; see
// disk.HoldIO.
type Hold struct {
	On bool `json:"on"`
}

// Description is what the disk's head says, and the front end by which the kernel has the disk.
type Description struct {
	ID         string    `json:"id"`
	State      string    `json:"state"`
	Mode       string    `json:"mode"`
	Epoch      uint64    `json:"epoch"`
	Generation uint64    `json:"generation"`
	Holder     string    `json:"holder,omitempty"`
	UpdatedAt  time.Time `json:"updated_at"`
	FrontEnd   string    `json:"front_end,omitempty"` // how this kernel gets the disk: fuse or nbd
}
