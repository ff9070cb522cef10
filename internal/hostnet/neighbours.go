package hostnet

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bound is a setting of the kernel that must not be lower than Least.
type Bound struct {
	Name  string // as sysctl says it
	File  string
	Least int64
}

// NeighbourBounds are those of the table of IPv6 neighbours, of which the kernel has one for all
// namespaces. Each machine can fill in as many as it sends to addresses on its own link: hundreds a
// second with the kernel's defaults, which end at 1024.
func NeighbourBounds() []Bound {
	const name, dir = "net.ipv6.neigh.default.", "/proc/sys/net/ipv6/neigh/default/"
	var all []Bound
	for _, b := range []Bound{{Name: "gc_thresh3", Least: 1 << 17},
		{Name: "gc_thresh2", Least: 1 << 16}, {Name: "gc_thresh1", Least: 1 << 14}} {
		all = append(all, Bound{Name: name + b.Name, File: dir + b.Name, Least: b.Least})
	}
	return all
}

// raise sets bounds that are lower, and leaves alone what is higher, or isn't there: the kernel
// shows those of its tables in the host's own namespace only. It returns what it has set.
func raise(bounds []Bound) ([]Bound, error) {
	var set []Bound
	for _, b := range bounds {
		text, err := os.ReadFile(b.File)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return set, errs.Wrap(errs.Unsupported, err, "read %s", b.Name)
		}
		has, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return set, errs.Wrap(errs.Internal, err, "read %s", b.Name)
		}
		if has >= b.Least {
			continue
		}
		if err := os.WriteFile(b.File, []byte(strconv.FormatInt(b.Least, 10)), 0); err != nil {
			return set, errs.Wrap(errs.Unsupported, err, "raise %s", b.Name).
				WithRemedy("run as root")
		}
		set = append(set, b)
	}
	return set, nil
}
