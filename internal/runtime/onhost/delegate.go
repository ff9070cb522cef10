package onhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// workerCgroup is where a worker moves itself if it is in the cgroup that becomes its VMs' parent.
const workerCgroup = "sluice-worker"

// limiting are the controllers that bound a VM. All are needed.
func limiting() []string { return []string{"cpu", "memory", "pids"} }

// Version returns the version of cgroups that has a controller on this host, "v1" or "v2"; "" if
// none that this process can see has it.
func (l Layout) Version(controller string) string {
	switch {
	case l.V1For(controller) != "":
		return "v1"
	case slices.Contains(l.V2, controller):
		return "v2"
	}
	return ""
}

// Describe says which version has each controller that bounds a VM, for people.
func (l Layout) Describe() string {
	var all []string
	for _, controller := range limiting() {
		all = append(all, controller+" "+l.Version(controller))
	}
	return strings.Join(all, ", ")
}

// AllV2 says whether v2 has all that bounds a VM, or v1 all: a container runtime uses one of them.
// Unsupported, with the names, on a host that has some here and some there.
func (l Layout) AllV2() (bool, error) {
	if err := l.CheckLimits(); err != nil {
		return false, err
	}
	in := map[string][]string{}
	for _, controller := range limiting() {
		in[l.Version(controller)] = append(in[l.Version(controller)], controller)
	}
	if len(in) > 1 {
		return false, errs.New(errs.Unsupported,
			"this host has cgroup controllers %s in v1, and %s in v2; a sandbox VM needs them in one",
			strings.Join(in["v1"], ", "), strings.Join(in["v2"], ", ")).
			WithRemedy("boot with cgroup_no_v1=all, or run the worker with --runtime qemu")
	}
	return in["v1"] == nil, nil
}

// CheckLimits refuses a host where something can't be bounded: Unsupported, with the controllers'
// names.
func (l Layout) CheckLimits() error {
	var missing []string
	for _, controller := range limiting() {
		if l.Version(controller) == "" {
			missing = append(missing, controller)
		}
	}
	if missing == nil {
		return nil
	}
	names := strings.Join(missing, ", ")
	return errs.New(errs.Unsupported,
		"this host has no cgroup controller for %s, neither in v1 nor in v2 (%s)",
		names, l.Unified).
		WithRemedy(
			"boot with cgroup_no_v1=all, without cgroup_disable=; or mount the v1 hierarchy: mount -t cgroup -o %s cgroup /sys/fs/cgroup/%[1]s", missing[0])
}

// Delegate lets dir's children use the controllers that limits need, as far as dir has them itself.
// EBUSY: it has processes of its own, which only the root of all may have beside such children.
//
// It enables all controllers in one write. If it enabled first those that can bound single threads,
// the kernel would make a cgroup with processes a threaded one. Its children could then neither
// have their memory bounded nor be a VM's cgroup.
func Delegate(dir string) error {
	have, err := controllersOf(dir)
	if err != nil {
		return err
	}
	var wanted []string
	for _, controller := range []string{"cpuset", "cpu", "io", "memory", "pids"} {
		if slices.Contains(have, controller) {
			wanted = append(wanted, "+"+controller)
		}
	}
	if wanted == nil {
		return nil
	}
	occupied, err := isOccupied(dir)
	if err == nil && occupied {
		err = &fs.PathError{Op: "delegate", Path: dir, Err: unix.EBUSY}
	}
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, "cgroup.subtree_control"), strings.Join(wanted, " "))
}

// isOccupied reports whether a cgroup other than the root has processes of its own.
func isOccupied(dir string) (bool, error) {
	if !hasType(dir) {
		return false, nil
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return len(procs) > 0, err
}

// hasType reports whether a cgroup is not the host's root, which alone has no type.
func hasType(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return err == nil
}

// arrangedFrom returns the cgroup below which, itself included, all on the way to the VM's is ours
// to arrange. What is above one that was delegated is somebody else's.
func (c Cgroups) arrangedFrom() string {
	dir := c.Unified
	for part := range strings.SplitSeq(c.Parent, "/") {
		dir = filepath.Join(dir, part)
		if isDelegated(dir) {
			return dir
		}
	}
	return c.Unified
}

// checkBounded refuses a place where the VM's cgroup got no controller, because one above it has
// none to give.
func (c Cgroups) checkBounded() error {
	have, err := controllersOf(c.Outer(c.Unified))
	if err != nil {
		return err
	}
	for _, controller := range limiting() {
		if c.Version(controller) == "v2" && !slices.Contains(have, controller) {
			return errs.New(errs.Unsupported,
				"no VM can be bounded below cgroup %s: it may not use controller %s",
				filepath.Join(c.Unified, c.Parent), controller).
				WithRemedy(
					"give the worker's unit Delegate=yes, or run the worker with another --cgroup-parent")
		}
	}
	return nil
}

// controllersOf lists what a v2 cgroup may use.
func controllersOf(dir string) ([]string, error) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(have)), err
}

// delegate is Delegate for a cgroup on the way to a VM's. The kernel lets none have processes of
// its own and children with limits. If it is the worker who is in the way, and the cgroup is the
// worker's to arrange, then the worker steps aside.
func (c Cgroups) delegate(dir string) error {
	err := Delegate(dir)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	own, ownErr := ownCgroup(c.Unified)
	if ownErr != nil {
		return ownErr
	}
	remedy := "run the worker with --cgroup-parent below a cgroup without processes"
	switch {
	case own != dir:
		return errs.Wrap(errs.Conflict, err,
			"cgroup %s has processes (%s), so VMs can't be bounded below it", dir, occupants(dir)).
			WithRemedy("%s", remedy)
	case !isDelegated(dir) && !isNamespaceRoot(dir):
		return errs.Wrap(errs.Conflict, err,
			"this worker runs in cgroup %s, which isn't delegated to it, so VMs can't be bounded below it", dir).
			WithRemedy("give the worker's unit Delegate=yes, or %s", remedy)
	}
	aside := filepath.Join(dir, workerCgroup)
	if err := os.Mkdir(aside, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := WriteFile(filepath.Join(aside, "cgroup.procs"), "0"); err != nil {
		return fmt.Errorf("leave %s to the VMs: %w", dir, err)
	}
	if err := Delegate(dir); errors.Is(err, unix.EBUSY) {
		return errs.Wrap(errs.Conflict, err,
			"cgroup %s has processes beside this worker (%s), so VMs can't be bounded below it",
			dir, occupants(dir)).
			WithRemedy("start the worker alone there, by exec, or %s", remedy)
	} else if err != nil {
		return err
	}
	return nil
}

// ownCgroup returns the directory of the v2 cgroup that this process is in.
func ownCgroup(unified string) (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find own cgroup: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(unified, path), nil
		}
	}
	return "", errs.New(errs.Unsupported, "this process is in no v2 cgroup")
}

// isDelegated reports whether systemd has marked a cgroup as delegated (Delegate=yes): its
// processes may arrange what is below it.
func isDelegated(dir string) bool {
	return isMarked(dir, "trusted.delegate") || isMarked(dir, "user.delegate")
}

// isNamespaceRoot tells whether a cgroup is the root of what this process sees and not of all: a
// container's own.
func isNamespaceRoot(dir string) bool { return hasType(dir) && !hasType(filepath.Dir(dir)) }

// occupants names the processes of a cgroup itself, for messages.
func occupants(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err.Error()
	}
	const most = 5
	var names []string
	for i, pid := range strings.Fields(string(text)) {
		if i == most {
			names = append(names, "and more")
			break
		}
		comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		names = append(names, strings.TrimSpace(pid+" "+string(comm)))
	}
	return strings.Join(names, ", ")
}
