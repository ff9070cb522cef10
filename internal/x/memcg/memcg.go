// Package memcg bounds the memory of cgroups, of either version, and tells what the kernel has
// killed for that.
package memcg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroup is a cgroup with the memory controller.
type Cgroup struct {
	Dir string
	V2  bool
}

// Limit bounds its memory and that of all below it, swap included, in bytes; 0 lifts the bound.
// EBUSY: it uses more now, and the kernel can't take it away. No process is killed for a new bound.
func (c Cgroup) Limit(bytes int64) error {
	if !c.V2 {
		return c.limitV1(bytes)
	}
	value, swap := "max", "max"
	if bytes > 0 {
		value, swap = strconv.FormatInt(bytes, 10), "0"
	}
	err := c.makeRoom(bytes)
	if err == nil {
		err = c.write("memory.max", value)
	}
	if err == nil {
		err = optional(c.write("memory.swap.max", swap))
	}
	// also after one who died in between
	return errors.Join(err, optional(c.write("memory.high", "max")))
}

// reclaimTries is how often the kernel is asked for what is above a new bound: a signal ends its
// work early.
const reclaimTries = 5

// makeRoom has the kernel take back what is used above bytes. memory.max would have it kill for
// that; with memory.high it slows the processes down, and no more. It leaves that low.
func (c Cgroup) makeRoom(bytes int64) error {
	for range reclaimTries {
		used, err := c.used()
		if errors.Is(err, fs.ErrNotExist) || bytes == 0 || err == nil && used <= bytes {
			return nil
		}
		if err != nil {
			return err
		}
		if err := optional(c.write("memory.high", strconv.FormatInt(bytes, 10))); err != nil {
			return err
		}
	}
	used, err := c.used()
	if err == nil && used > bytes {
		err = fmt.Errorf("%d bytes are in use, which is more than %d: %w", used, bytes, unix.EBUSY)
	}
	return err
}

func (c Cgroup) used() (int64, error) {
	text, err := os.ReadFile(filepath.Join(c.Dir, "memory.current"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// limitV1 sets the bound for memory, and the same for memory and swap together, which means no
// swap. The second must never be the smaller one, so it is lifted first.
func (c Cgroup) limitV1(bytes int64) error {
	value := "-1"
	if bytes > 0 {
		value = strconv.FormatInt(bytes, 10)
	}
	const swap = "memory.memsw.limit_in_bytes"
	if err := optional(c.write(swap, "-1")); err != nil {
		return err
	}
	if err := c.write("memory.limit_in_bytes", value); err != nil {
		return err
	}
	return optional(c.write(swap, value))
}

// Protect keeps that many bytes of it from being reclaimed for the sake of others. Its ancestors
// must be protected as well. Only v2 has that; with v1 it does nothing.
func (c Cgroup) Protect(bytes int64) error {
	if !c.V2 {
		return nil
	}
	return optional(c.write("memory.min", strconv.FormatInt(bytes, 10)))
}

// Enter moves the calling process into it.
func (c Cgroup) Enter() error { return c.write("cgroup.procs", "0") }

// OOMKills returns how many of its processes the kernel has killed for lack of memory, with v2 also
// of all below it. It has counted one before that ends. fs.ErrNotExist: it has no memory
// controller, or the kernel doesn't count.
func (c Cgroup) OOMKills() (int64, error) {
	name := "memory.oom_control"
	if c.V2 {
		name = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(c.Dir, name))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key == "oom_kill" {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("no oom_kill in %s: %w", name, fs.ErrNotExist)
}

// write writes a control file, which must exist, in one write.
func (c Cgroup) write(name, value string) error {
	f, err := os.OpenFile(filepath.Join(c.Dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// optional forgives a file that this kernel doesn't have.
func optional(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
