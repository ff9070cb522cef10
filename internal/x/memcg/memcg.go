// Package memcg bounds the memory of cgroups, of either version, and tells what the kernel has killed for that.
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

// Limit bounds its memory and that of all below it, swap included, in bytes; 0 lifts the bound. EBUSY: it uses more now, and
// the kernel can't take it away (v1 alone; v2 kills until it fits).
func (c Cgroup) Limit(bytes int64) error {
	if !c.V2 {
		return c.limitV1(bytes)
	}
	value := "max"
	if bytes > 0 {
		value = strconv.FormatInt(bytes, 10)
	}
	if err := c.write("memory.max", value); err != nil {
		return err
	}
	return optional(c.write("memory.swap.max", "0"))
}

// limitV1 sets the bound for memory, and the same for memory and swap together, which means no swap. The second must never be
// the smaller one, so it is lifted first.
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

// Protect keeps that many bytes of it from being reclaimed for the sake of others. Its ancestors must be protected as well.
// Only v2 has that; with v1 it does nothing.
func (c Cgroup) Protect(bytes int64) error {
	if !c.V2 {
		return nil
	}
	return optional(c.write("memory.min", strconv.FormatInt(bytes, 10)))
}

// OOMKills returns how many of its processes the kernel has killed for lack of memory, with v2 also of all below it.
// It has counted one before that ends. fs.ErrNotExist: it has no memory controller, or the kernel doesn't count.
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
