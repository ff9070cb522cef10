// Package bootdisk is the protocol between the qemu driver and the first program in its VMs: the
// small disk on which a VM gets its order, the names of its disks, and the marks on its console. It
// does I/O only on readers and writers that it is given.
//
// Invariants: an order is complete or absent, because its header is written last and has a
// checksum. A VM reads the disk past its caches, again and again until the order is there. So a VM
// that was saved while it waited finds its own order when it is resumed.
package bootdisk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Serial numbers of a VM's disks, by which it tells them apart.
const (
	SerialBoot    = "sluice-boot"
	SerialRelease = "sluice-release"
	SerialCache   = "sluice-cache"
)

// Marks on the console, each at the start of a line. Before MarkInit only the kernel, the first
// program and the platform write there; after it anybody may.
const (
	MarkReady = "sluice-boot: ready" // takes its order
	// still without one, the platform has done what it can: not there if the order is early
	MarkWarm   = "sluice-boot: warm"
	MarkInit   = "sluice-boot: init"    // the order was followed, and the release's init runs
	MarkFailed = "sluice-boot: failed:" // and why; the VM ends
	MarkProbe  = "sluice-boot: probe"   // this kernel boots here
)

// ProbeArgument on the kernel's command line has the VM end as soon as it has booted.
const ProbeArgument = "sluice.probe=1"

const (
	// Size of the disk, in bytes.
	Size = 2 << 20
	// MaxBoot is the largest boot document, in bytes.
	MaxBoot = 1 << 20

	block = 4096 // the header's, and what reads past the cache are aligned to
	magic = "SLUICEB1"
)

// Order is everything that a VM needs to become this VM, and gets once.
type Order struct {
	Hostname string    `json:"hostname"`
	Clock    time.Time `json:"clock"` // at the moment of writing
	Seed     []byte    `json:"seed"`  // for the kernel's random numbers
	Boot     []byte    `json:"boot"`  // the boot document
}

// Write puts an order on the disk.
func Write(disk io.WriterAt, o Order) error {
	if len(o.Boot) > MaxBoot {
		return errs.New(errs.Invalid, "a boot document of %d bytes; at most %d",
			len(o.Boot), MaxBoot)
	}
	body, err := json.Marshal(o)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode order")
	}
	if _, err := disk.WriteAt(body, block); err != nil {
		return errs.Wrap(errs.Internal, err, "write order")
	}
	var head [block]byte
	copy(head[:], magic)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(head[12:], crc32.ChecksumIEEE(body))
	if _, err := disk.WriteAt(head[:], 0); err != nil {
		return errs.Wrap(errs.Internal, err, "write head of order")
	}
	return nil
}

// Read returns the order on the disk, if there is one. The buffer must have Size bytes. Reads have
// the alignment of the buffer.
func Read(disk io.ReaderAt, buffer []byte) (Order, bool, error) {
	var o Order
	if _, err := disk.ReadAt(buffer[:block], 0); err != nil {
		return o, false, errs.Wrap(errs.Unavailable, err, "read head of order")
	}
	if !bytes.HasPrefix(buffer, []byte(magic)) {
		return o, false, nil
	}
	n, sum := int(binary.LittleEndian.Uint32(buffer[8:])), binary.LittleEndian.Uint32(buffer[12:])
	if n > Size-block {
		return o, false, errs.New(errs.Corrupt, "order of %d bytes", n)
	}
	body := buffer[block : block+(n+block-1)/block*block]
	if _, err := disk.ReadAt(body, block); err != nil {
		return o, false, errs.Wrap(errs.Unavailable, err, "read order")
	}
	if crc32.ChecksumIEEE(body[:n]) != sum {
		return o, false, nil // not all of it is there yet
	}
	if err := json.Unmarshal(body[:n], &o); err != nil {
		return o, false, errs.Wrap(errs.Corrupt, err, "decode order")
	}
	return o, true, nil
}
