package onhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Hierarchy is one cgroup v1 Hierarchy of the host.
type Hierarchy struct {
	Mount       string   // where the host has it
	Options     string   // mount options that name it: "cpu,cpuacct", "none,name=systemd"
	Controllers []string // empty for a named one
}

// Layout describes this host's cgroups. Kill and freeze always use v2; each limit uses the version
// that has its controller. V1 is empty on a pure v2 host.
type Layout struct {
	Unified string
	V1      []Hierarchy
	V2      []string // controllers that Unified has
}

// ReadLayout finds the host's cgroups from a mountinfo file and a list of v1 controllers
// (/proc/cgroups).
func ReadLayout(mountinfo, controllers io.Reader) (Layout, error) {
	known, err := v1Controllers(controllers)
	if err != nil {
		return Layout{}, err
	}
	var l Layout
	seen := map[string]bool{}
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 6 || len(tail) < 3 || head[3] != "/" {
			continue
		}
		switch tail[0] {
		case "cgroup2":
			if l.Unified == "" {
				l.Unified = head[4]
			}
		case "cgroup":
			h := parseHierarchy(head[4], tail[2], known)
			if h.Options != "" && !seen[h.Options] {
				seen[h.Options] = true
				l.V1 = append(l.V1, h)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return Layout{}, fmt.Errorf("read mounts: %w", err)
	}
	if l.Unified == "" {
		return Layout{}, errs.New(errs.Unsupported, "this host has no cgroup v2 Hierarchy mounted").
			WithRemedy("mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified (or boot with cgroup v2)")
	}
	return l, nil
}

// v1Controllers reads the names in /proc/cgroups.
func v1Controllers(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			names[f[0]] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read cgroup controllers: %w", err)
	}
	return names, nil
}

func parseHierarchy(mount, superOptions string, known map[string]bool) Hierarchy {
	h := Hierarchy{Mount: mount}
	for o := range strings.SplitSeq(superOptions, ",") {
		switch {
		case known[o]:
			h.Controllers = append(h.Controllers, o)
		case strings.HasPrefix(o, "name="):
			h.Options = "none," + o
		}
	}
	if len(h.Controllers) > 0 {
		h.Options = strings.Join(h.Controllers, ",")
	}
	return h
}

// HostLayout finds this host's cgroups.
func HostLayout() (Layout, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Layout{}, fmt.Errorf("open mounts: %w", err)
	}
	defer func() { _ = mounts.Close() }()
	controllers, err := os.ReadFile("/proc/cgroups")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without v1 has no such file
		return Layout{}, fmt.Errorf("read cgroup controllers: %w", err)
	}
	l, err := ReadLayout(mounts, strings.NewReader(string(controllers)))
	if err != nil {
		return Layout{}, err
	}
	if l.V2, err = controllersOf(l.Unified); err != nil {
		return Layout{}, fmt.Errorf("read cgroup controllers: %w", err)
	}
	return l, nil
}

// V1For returns where the host has a v1 controller, or "".
func (l Layout) V1For(controller string) string {
	for _, h := range l.V1 {
		if slices.Contains(h.Controllers, controller) {
			return h.Mount
		}
	}
	return ""
}

// mounts returns the mount points of all hierarchies, v2 last.
func (l Layout) mounts() []string {
	var all []string
	for _, h := range l.V1 {
		all = append(all, h.Mount)
	}
	return append(all, l.Unified)
}

// Cgroups are one VM's cgroups: parent/id holds its limits, parent/id/vm is the root of what it
// sees.
type Cgroups struct {
	Layout
	Parent  string   // relative to each mount
	ID      string   // the VM's
	Devices []string // more devices that it may open, as rules of the v1 devices controller
}

const (
	innerCgroup  = "vm"
	besideCgroup = "broker"
)

// Outer is the VM's cgroup, below a hierarchy's mount: it holds the limits.
func (c Cgroups) Outer(mount string) string { return filepath.Join(mount, c.Parent, c.ID) }

// Inner is the cgroup below it that the VM's processes are in.
func (c Cgroups) Inner(mount string) string { return filepath.Join(c.Outer(mount), innerCgroup) }

// Beside is the cgroup, in v2, of a process outside of the VM that is killed and frozen with it.
// CreateBeside makes it.
func (c Cgroups) Beside() string { return filepath.Join(c.Outer(c.Unified), besideCgroup) }

// CreateBeside makes the cgroup that Beside names.
func (c Cgroups) CreateBeside() error {
	if err := os.Mkdir(c.Beside(), 0o755); err != nil {
		return errs.Wrap(errs.Internal, err, "create cgroup %s", c.Beside())
	}
	return nil
}

// Give lets a user of the host make cgroups in the VM's and move its processes there, and change
// nothing else of them.
func (c Cgroups) Give(uid uint32) error {
	for _, mount := range c.mounts() {
		files := []string{"", "cgroup.procs", "tasks"}
		if mount == c.Unified {
			files = []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
		}
		for _, f := range files {
			if err := os.Lchown(filepath.Join(c.Inner(mount), f), int(uid), int(uid)); err != nil {
				return errs.Wrap(errs.Internal, err, "give VM %s its cgroups", c.ID)
			}
		}
	}
	return nil
}

// Enter moves a process into the VM's cgroups.
func (c Cgroups) Enter(pid int) error {
	for _, file := range append(c.Joins(), filepath.Join(c.Inner(c.Unified), "cgroup.procs")) {
		if err := WriteFile(file, strconv.Itoa(pid)); err != nil {
			return errs.Wrap(errs.Internal, err, "enter the cgroups of VM %s", c.ID)
		}
	}
	return nil
}

// Create makes the VM's cgroups. Unsupported, and none is made, if the host can't bound a VM;
// Conflict if the parent has processes of its own. It retries, because parents are removed with the
// last VM below them, perhaps by another process just now.
func (c Cgroups) Create() error {
	if err := c.CheckLimits(); err != nil {
		return err
	}
	for _, mount := range c.mounts() {
		var err error
		for range 5 {
			if err = c.createIn(mount); !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		if errs.RemedyOf(err) != "" { // it says what it is about
			return err
		}
		if err != nil {
			return errs.Wrap(errs.Internal, err, "create cgroup %s", c.Inner(mount))
		}
	}
	return nil
}

func (c Cgroups) createIn(mount string) error {
	dir, from := mount, c.arrangedFrom()
	for part := range strings.SplitSeq(filepath.Join(c.Parent, c.ID, innerCgroup), "/") {
		if mount == c.Unified && strings.HasPrefix(dir+"/", from+"/") {
			if err := c.delegate(dir); err != nil {
				return err
			}
		}
		up := dir
		dir = filepath.Join(dir, part)
		err := os.Mkdir(dir, 0o755)
		if err == nil && mount == c.Unified {
			err = unix.Setxattr(dir, madeMark, []byte("1"), 0)
			if errors.Is(err, unix.EOPNOTSUPP) { // a kernel before 5.7 has none in v2
				err = nil
			}
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := c.adjust(mount, up, dir); err != nil {
			return err
		}
	}
	if mount == c.Unified {
		return c.checkBounded()
	}
	return nil
}

// adjust prepares a new cgroup for its first process, as some v1 controllers require.
func (c Cgroups) adjust(mount, up, dir string) error {
	if mount == c.V1For("cpuset") {
		if err := copyCpuset(up, dir); err != nil {
			return err
		}
	}
	if mount == c.V1For("devices") && dir == c.Outer(mount) { // refused once it has children
		return allowDevices(dir, c.Devices)
	}
	return nil
}

// copyCpuset gives a new v1 cpuset its parent's CPUs and memory nodes: it starts with none, and
// nothing can run in it then.
func copyCpuset(up, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(now)) != "" {
			continue
		}
		from, err := os.ReadFile(filepath.Join(up, name))
		if err != nil {
			return err
		}
		if err := WriteFile(filepath.Join(dir, name), strings.TrimSpace(string(from))); err != nil {
			return err
		}
	}
	return nil
}

// Joins lists the files through which a process enters the VM's v1 cgroups.
func (c Cgroups) Joins() []string {
	var files []string
	for _, h := range c.V1 {
		files = append(files, filepath.Join(c.Inner(h.Mount), "cgroup.procs"))
	}
	return files
}

// Populated reports whether a process is left in the VM's cgroup or below it.
func (c Cgroups) Populated() (bool, error) { return c.event("populated") }

// event reads one flag of cgroup.events; false where the cgroup is gone.
func (c Cgroups) event(name string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(c.Outer(c.Unified), "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup events: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			return f[1] == "1", nil
		}
	}
	return false, nil
}

// Pids lists the processes in the VM, for messages.
func (c Cgroups) PIDs() []string {
	var pids []string
	_ = filepath.WalkDir(c.Outer(c.Unified), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			pids = append(pids, strings.Fields(string(b))...)
		}
		return nil
	})
	return pids
}

// Remove deletes the VM's cgroups, those that it made itself included. A cgroup stays busy for a
// moment after its last process has gone.
func (c Cgroups) Remove(ctx context.Context) error {
	for _, mount := range c.mounts() {
		err := Poll(ctx, func() (bool, error) {
			err := removeTree(c.Outer(mount))
			if errors.Is(err, unix.EBUSY) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			return errs.Wrap(errs.Unavailable, err, "remove cgroup %s (processes %v)",
				c.Outer(mount), c.PIDs())
		}
		c.removeParents(mount)
	}
	if err := c.protectParents(); err != nil { // what the VM had been promised is nobody's
		return errs.Wrap(errs.Unavailable, err, "remove cgroup %s", c.Outer(c.Unified))
	}
	return nil
}

// removeParents removes parents that are empty. The kernel refuses the others.
func (c Cgroups) removeParents(mount string) {
	for p := c.Parent; p != "." && p != ""; p = filepath.Dir(p) {
		if unix.Rmdir(filepath.Join(mount, p)) != nil {
			return
		}
	}
}

// removeTree removes a cgroup and those below it. Their files go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// WriteFile writes a control file, which must exist, in one write.
func WriteFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Poll calls done until it reports true or fails, at growing intervals of up to 20 ms.
func Poll(ctx context.Context, done func() (bool, error)) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if backoff.Sleep(ctx, wait) != nil {
			return context.Cause(ctx)
		}
	}
}
