package inner

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/platform/ownview"
)

const (
	idBase = 100000 // what the container's uid and gid 0 are outside
	idSize = 65536

	cgroupName = "machine"

	newRoot = "newroot" // where the machine's disk is attached before it becomes the root
	initBin = "init"    // the container's PID 1, in the root that it starts with
)

// writeBundle writes the bundle from which the OCI runtime starts the container.
func writeBundle(dir, initBinary, view string) error {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{newRoot, "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	// The bind mount's target. The file system is the VM's own tmpfs: nothing of a machine's is
	// here.
	if err := os.WriteFile(filepath.Join(root, initBin), nil,
		0o755); err != nil { //nolint:gosec // it is run
		return fmt.Errorf("make bundle: %w", err)
	}
	data, err := json.MarshalIndent(spec(initBinary, view), "", " ")
	if err != nil {
		return fmt.Errorf("encode container spec: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		return fmt.Errorf("write container spec: %w", err)
	}
	return nil
}

func spec(initBinary, view string) *specs.Spec {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: idBase, Size: idSize}}
	caps := capabilities()
	processes, likeAny := int64(fleet.LeastProcesses), 0 // until LimitProcesses
	return &specs.Spec{
		Version:  "1.0.2",
		Hostname: "sluice",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"/" + initBin, "container-init"},
			Env:  []string{"PATH=/", "GOMAXPROCS=2", "GOGC=50"},
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps,
				Permitted: caps},
			// not the platform's; what its init starts has a score that goes first
			OOMScoreAdj: &likeAny,
			// NoNewPrivileges stays off: root inside is root inside, and sudo works.
		},
		Mounts: append(mounts(initBinary), views(view)...),
		Linux: &specs.Linux{
			UIDMappings: ids,
			GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace}, {Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
			CgroupsPath: "/" + cgroupName,
			Resources: &specs.LinuxResources{
				Devices: deviceRules(),
				Pids:    &specs.LinuxPids{Limit: &processes},
			},
			Seccomp:     seccomp(),
			MaskedPaths: masked(),
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq",
				"/proc/sysrq-trigger"},
			RootfsPropagation: "private",
		},
	}
}

func mounts(initBinary string) []specs.Mount {
	return []specs.Mount{
		{Destination: "/" + initBin, Type: "bind", Source: initBinary,
			Options: []string{"bind", "ro", "nosuid", "nodev"}},
		{Destination: "/proc", Type: "proc", Source: "proc",
			Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid",
			"noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue",
			Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
}

// views are the mounts by which the machine sees what is its own where the kernel shows the host's.
func views(dir string) []specs.Mount {
	var all []specs.Mount
	for _, f := range ownview.Files() {
		all = append(all, specs.Mount{Destination: f.Over, Type: "bind",
			Source: filepath.Join(dir, f.File), Options: []string{"bind", "ro", "nosuid",
				"nodev", "noexec"}})
	}
	return all
}

// masked are the files and directories that tell of the host, or of others' machines: their disks
// and how much these do, when they work, what the kernel is made of and where it is in memory.
func masked() []string {
	return strings.Fields(`/proc/acpi /proc/asound /proc/buddyinfo /proc/cmdline /proc/diskstats
		/proc/interrupts /proc/iomem /proc/ioports /proc/kallsyms /proc/kcore /proc/key-users
		/proc/keys /proc/kpagecgroup /proc/kpagecount /proc/kpageflags /proc/latency_stats
		/proc/locks /proc/modules /proc/mtrr /proc/pagetypeinfo /proc/partitions /proc/pressure
		/proc/sched_debug /proc/schedstat /proc/scsi /proc/slabinfo /proc/softirqs
		/proc/timer_list /proc/timer_stats /proc/vmallocinfo /proc/zoneinfo /sys/block
		/sys/bus/pci /sys/class/bdi /sys/class/block /sys/class/dmi /sys/class/powercap
		/sys/class/thermal /sys/dev/block /sys/devices/virtual/bdi /sys/devices/virtual/block
		/sys/devices/virtual/dmi /sys/devices/virtual/powercap /sys/devices/virtual/thermal
		/sys/firmware /sys/fs/bpf /sys/fs/ext4 /sys/fs/fuse /sys/hypervisor /sys/kernel/btf
		/sys/kernel/debug /sys/kernel/iommu_groups /sys/kernel/notes /sys/kernel/security
		/sys/kernel/slab /sys/kernel/tracing /sys/kernel/vmcoreinfo /sys/module /sys/power`)
}

// capabilities are what root has inside, and they hold inside only. Not among them is what would
// let it change the mounts, the kernel, or another's process that isn't its own.
func capabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",
		"CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
		"CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// deviceRules allow the usual character devices; the runtime adds those and the terminals itself.
func deviceRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
}
