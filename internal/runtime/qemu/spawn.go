package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Files of a VM's directory.
const (
	bootFile  = "boot.img"
	cacheFile = "cache.img"
	qemuLog   = "qemu.log"
)

// Descriptors that QEMU is started with.
const (
	tapFD     = 3
	monitorFD = 4
	savedFD   = 5
)

// plan is everything that shapes a VM's QEMU.
type plan struct {
	guest
	id         fleet.VMID
	host       host
	cacheBytes int64
}

// arguments of QEMU, for files below dir. A VM can be resumed from another one that was saved if
// only the id, dir and Image's name differ.
func (p plan) arguments(dir string) []string {
	args := []string{
		"-name", "vm-" + string(p.id), "-nodefaults", "-no-user-config", "-display",
		"none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "q35", "-smp", fmt.Sprint(p.host.CPUs),
		"-m", fmt.Sprintf("%dM,maxmem=%dM", baseMiB, baseMiB+p.host.MemoryMiB),
		"-kernel", p.Kernel, "-initrd", p.Initrd, "-append", commandLine(p.Accel),
		"-chardev", "file,id=console,append=on,path=" + escape(filepath.Join(dir,
			onhost.ConsoleFile)), "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", monitorFD), "-mon",
		"chardev=qmp,mode=control",
		"-netdev", fmt.Sprintf("tap,id=link,fd=%d", tapFD),
		"-device", "virtio-net-pci,netdev=link,mac=" + onhost.GuestLinkMAC + ",romfile=",
		"-object", fmt.Sprintf("memory-backend-ram,id=more,size=%dM,reserve=off", p.host.MemoryMiB),
		"-device", "virtio-mem-pci,id=" + memoryDevice + ",memdev=more,requested-size=0",
	}
	args = append(args, firmware()...)
	args = append(args, p.Accel.arguments()...)
	args = append(args, disk("boot", filepath.Join(dir, bootFile), bootdisk.SerialBoot, true)...)
	args = append(args, disk("release", p.Image, bootdisk.SerialRelease, true)...)
	if p.cacheBytes > 0 {
		args = append(args, disk("cache", filepath.Join(dir, cacheFile),
			bootdisk.SerialCache, false)...)
	}
	return args
}

// quickFirmware is a firmware of QEMU that only starts the given kernel. The default one, emulated,
// takes half a second to find that there is nothing else to do.
const quickFirmware = "/usr/share/qemu/qboot.rom"

func firmware() []string {
	if _, err := os.Stat(quickFirmware); err != nil {
		return nil
	}
	return []string{"-bios", quickFirmware}
}

// escape escapes a value for a list with commas.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func disk(name, path, serial string, readOnly bool) []string {
	b, err := json.Marshal(map[string]any{
		"driver": "raw", "node-name": name, "read-only": readOnly, "discard": "unmap",
		// What a VM writes to its cache goes around the host's page cache, where it would count as
		// QEMU's.
		"cache": map[string]any{"direct": !readOnly && directIO(path)},
		// Nobody else has these files, and a lock would outlive its sense in a release's image.
		"file": map[string]any{"driver": "file", "filename": path, "locking": "off",
			"discard": "unmap"},
	})
	if err != nil {
		panic(err) // strings and booleans always encode
	}
	return []string{"-blockdev", string(b), "-device",
		"virtio-blk-pci,drive=" + name + ",serial=" + serial}
}

// directIO reports whether a file's file system can do without the page cache.
func directIO(path string) bool {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// openTap makes the worker's end of the VM's link, and returns QEMU's. The link ends with QEMU.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errs.Wrap(errs.Unsupported, err, "open /dev/net/tun").WithRemedy("modprobe tun")
	}
	tap := os.NewFile(uintptr(fd), "tap "+name)
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = quiet(name)
	}
	if err == nil {
		err = onhost.BringUp(name, guestapi.HostLinkIP)
	}
	if err == nil {
		err = onhost.PinPeer(name, guestapi.GuestLinkIP, onhost.GuestLinkMAC)
	}
	if err != nil {
		return nil, errors.Join(errs.Wrap(errs.Internal, err, "make link %s", name), tap.Close())
	}
	return tap, nil
}

// quiet lets a link have as many bytes under way as a veth has: a tap starts with less.
func quiet(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetTxQLen(link, 1000)
}

// spawn starts QEMU in the VM's cgroups, by way of Child; saved may be nil.
func (v *vm) spawn(p plan, saved *os.File) (err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	tap, err := openTap(v.HostLink())
	if err != nil {
		return err
	}
	files = append(files, tap)
	control, err := listenMonitor(v.Dir())
	if err != nil {
		return errs.Wrap(errs.Internal, err, "make control socket of VM %s", p.id)
	}
	files = append(files, control)
	log, err := os.OpenFile(filepath.Join(v.Dir(), qemuLog),
		os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "open log of VM %s", p.id)
	}
	files = append(files, log)
	cgroup, err := os.Open(v.Cgroups.Inner(v.Cgroups.Unified))
	if err != nil {
		return errs.Wrap(errs.Internal, err, "open cgroup of VM %s", p.id)
	}
	files = append(files, cgroup)
	qemu, err := lookPath(program)
	if err != nil {
		return errs.Wrap(errs.Unsupported, err,
			"find QEMU").WithRemedy("apt-get install qemu-system-x86")
	}
	pass, args := []*os.File{tap, control}, append([]string{program}, p.arguments(v.Dir())...)
	if saved != nil {
		pass = append(pass, saved)
		args = append(args, "-incoming", fmt.Sprintf("fd:%d", savedFD))
	}
	j, err := v.jailOf(p, qemu, args)
	if err != nil {
		return err
	}
	cmd, err := j.command(cgroup, log, pass)
	if err != nil {
		return err
	}
	return v.run(cmd)
}

// run starts the command, and has it in the VM's record and cgroups.
func (v *vm) run(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return errs.Wrap(errs.Internal, err, "start QEMU of VM %s", v.ID())
	}
	pid := cmd.Process.Pid
	err := v.driver.attend(v, pid)
	for _, procs := range v.Cgroups.Joins() {
		if err == nil {
			err = onhost.WriteFile(procs, fmt.Sprint(pid))
		}
	}
	// The watcher reaps it, by its pid, as it does for adopted ones.
	return errors.Join(err, cmd.Process.Release(), v.WriteRecord())
}
