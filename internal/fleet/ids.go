package fleet

import (
	"regexp"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Identities. They are distinct types so that the compiler keeps them apart, and are compared
// whole, never by prefix or pattern.
type (
	// MachineID names a machine for life: 14 lower-case hex digits, of which the first two name its
	// cell.
	MachineID string
	// MachineName is chosen by the user; unique within an app of a network.
	MachineName string
	// InstanceID is a ULID, new each time a machine is started on a worker.
	InstanceID string
	// WorkerID is the worker's name, unique in the fleet.
	WorkerID string
	// AppName names a group of machines.
	AppName string
	// NetworkName names a private network, the unit of the migration lock.
	NetworkName string
	// ImageName names an image.
	ImageName string
	// DrainID and MoveID are ULIDs of operations.
	DrainID string
	MoveID  string
	// VMID names one VM on one worker: 8 lower-case hex digits. It is not an identity of a machine.
	VMID string
	// ReleaseID is the hex digest of a release of the platform.
	ReleaseID string
)

// Generation counts a machine's placements. It only grows, and every command to a worker carries
// it.
type Generation uint64

var (
	namePattern      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	machineIDPattern = regexp.MustCompile(`^[0-9a-f]{14}$`)
)

// CheckName checks a user-chosen name: 1–63 lower-case letters, digits and dashes, as in a DNS
// label. What says what it names, for the error.
func CheckName(what, name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return errs.New(errs.Invalid, "%s name %q is not allowed", what, name).
		WithRemedy(
			"use 1 to 63 lower-case letters, digits and dashes; start and end with a letter or digit")
}

// IsMachineID reports whether s has the form of a MachineID.
func IsMachineID(s string) bool { return machineIDPattern.MatchString(s) }
