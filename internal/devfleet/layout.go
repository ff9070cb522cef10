package devfleet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
)

// Layout derives every name that a fleet uses on this machine from its directory.
type Layout struct {
	Dir string // absolute
	ID  string // six hex digits
}

// NewLayout returns the layout of the fleet in dir.
func NewLayout(dir string) (Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Layout{}, fmt.Errorf("resolve %s: %w", dir, err)
	}
	sum := sha256.Sum256([]byte(abs))
	return Layout{Dir: abs, ID: hex.EncodeToString(sum[:3])}, nil
}

// WorkerName returns the name of the i-th worker, from 1.
func (l Layout) WorkerName(i int) string { return fmt.Sprintf("w%d", i) }

// Netns is the name of a worker's network namespace.
func (l Layout) Netns(worker string) string { return "slc-" + l.ID + "-" + worker }

// Bridge is the name of the fleet's bridge.
func (l Layout) Bridge() string { return "slc" + l.ID }

// Link is the name of a worker's port on the bridge.
func (l Layout) Link(worker string) string { return "sl" + l.ID + worker }

// CgroupParent is the parent of the cgroups of a worker's VMs.
func (l Layout) CgroupParent(worker string) string { return "sluice-" + l.ID + "-" + worker }

// FleetID is the fleet's identity in its own records.
func (l Layout) FleetID() string { return "dev-" + l.ID }

// ServerAddress is the server's address on the bridge.
func (l Layout) ServerAddress() netip.Addr { return l.address(1) }

// WorkerAddress is the i-th worker's address on the bridge, from 1.
func (l Layout) WorkerAddress(i int) netip.Addr { return l.address(uint16(0x10 + i)) }

func (l Layout) address(host uint16) netip.Addr {
	var b [16]byte
	id, _ := hex.DecodeString(l.ID) // six hex digits by construction
	b[0], b[1] = 0xfd, 0x5c
	copy(b[2:], id)
	binary.BigEndian.PutUint16(b[14:], host)
	return netip.AddrFrom16(b)
}

func (l Layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.Dir}, elem...)...)
}

// Files of the fleet's directory.
func (l Layout) stateFile() string          { return l.path("dev.json") }
func (l Layout) fleetFile() string          { return l.path("fleet.json") }
func (l Layout) operatorToken() string      { return l.path("operator.token") }
func (l Layout) fleetKey() string           { return l.path("fleet.key") }
func (l Layout) storeKey() string           { return l.path("store.credentials") }
func (l Layout) serverDir() string          { return l.path("server") }
func (l Layout) storeDir() string           { return l.path("store") }
func (l Layout) workerDir(w string) string  { return l.path("workers", w) }
func (l Layout) logFile(name string) string { return l.path("log", name+".log") }
