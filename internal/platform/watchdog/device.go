package watchdog

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Device is what the kernel counts of a block device.
type Device struct {
	Done     uint64 // requests, of all kinds
	InFlight uint64
}

// ReadDevice reads the counters of a block device, by its path.
func ReadDevice(path string) (Device, error) {
	text, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(path), "stat"))
	if err != nil {
		return Device{}, errs.Wrap(errs.Unavailable, err, "read the counters of %s", path)
	}
	return parseDevice(string(text))
}

// parseDevice reads the fields of the kernel's Documentation/block/stat.rst: requests done are at 0
// (reads), 4 (writes), 11 (discards) and 15 (flushes; since Linux 5.5), those in flight at 8.
func parseDevice(text string) (Device, error) {
	fields := strings.Fields(text)
	if len(fields) < 11 {
		return Device{}, errs.New(errs.Unsupported,
			"counters of a block device with %d fields", len(fields))
	}
	at := func(i int) uint64 {
		if i >= len(fields) {
			return 0
		}
		n, _ := strconv.ParseUint(fields[i], 10, 64)
		return n
	}
	return Device{Done: at(0) + at(4) + at(11) + at(15), InFlight: at(8)}, nil
}
