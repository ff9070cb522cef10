//go:build linux

// Command probe is user code that tries to get out of its machine. Tests run it inside machines.
//
//	probe dial HOST:PORT…          one line per address: "HOST:PORT open" or "… closed ERROR"
//	probe escape                   one line per thing that worked and must not
//	probe spoof SOURCE DEST PORT   sends a UDP datagram over IPv6 with a forged source address
//	probe hear PORT SECONDS        one line per UDP datagram: its source address
//
// And what its disk's file tree is, to be compared after a move:
//
//	probe plant DIR SEED           makes a tree with something of every kind
//	probe tree DIR [EXCEPT…]       one line per file, with all that it is
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/test/fleettest/treesum"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 1 && args[0] == "dial":
		return dial(args[1:])
	case len(args) == 1 && args[0] == "escape":
		return escape()
	case len(args) == 4 && args[0] == "spoof":
		return spoof(args[1], args[2], args[3])
	case len(args) == 3 && args[0] == "hear":
		return hear(args[1], args[2])
	case len(args) == 3 && args[0] == "plant":
		seed, err := strconv.ParseUint(args[2], 10, 64)
		if err != nil {
			return err
		}
		return treesum.Plant(args[1], seed)
	case len(args) > 1 && args[0] == "tree":
		return treesum.Write(os.Stdout, args[1], args[2:]...)
	}
	return fmt.Errorf("unknown arguments %q", args)
}

func dial(addresses []string) error {
	for _, a := range addresses {
		conn, err := net.DialTimeout("tcp", a, time.Second) //nolint:noctx // bounded
		if err != nil {
			if _, err := fmt.Println(a, "closed", err); err != nil { //nolint:forbidigo // a command
				return err
			}
			continue
		}
		conn.Close()
		if _, err := fmt.Println(a, "open"); err != nil { //nolint:forbidigo // a command
			return err
		}
	}
	return nil
}

// escape tries things that only the platform, or nobody, may do.
func escape() error {
	for _, try := range escapes() {
		if err := try.do(); err == nil {
			if _, err := fmt.Println(try.what); err != nil { //nolint:forbidigo // a command
				return err
			}
		}
	}
	return nil
}

// attempt is something that user code must not be able to do.
type attempt struct {
	what string
	do   func() error
}

func escapes() []attempt {
	return []attempt{
		{"mount a tmpfs", func() error { return unix.Mount("x", "/mnt", "tmpfs", 0, "") }},
		{"remount the root", func() error {
			return unix.Mount("", "/", "",
				unix.MS_REMOUNT|unix.MS_BIND, "")
		}},
		{"make a user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"make a mount namespace", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"make a network namespace", func() error { return unix.Unshare(unix.CLONE_NEWNET) }},
		{"make a loop device's node", func() error {
			return unix.Mknod("/tmp/loop0",
				unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0)))
		}},
		{"make a memory device's node", func() error {
			return unix.Mknod("/tmp/mem",
				unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))
		}},
		{"open /dev/fuse", func() error { return openDevice("/dev/fuse") }},
		{"open /dev/loop-control", func() error { return openDevice("/dev/loop-control") }},
		{"open /dev/loop0", func() error { return openDevice("/dev/loop0") }},
		{"open /dev/mem", func() error { return openDevice("/dev/mem") }},
		{"load a module", func() error { return unix.FinitModule(0, "", 0) }},
		{"write /proc/sys/kernel/panic",
			func() error { return overwrite("/proc/sys/kernel/panic") }},
		{"write /proc/sys/net/ipv6/conf/all/forwarding",
			func() error { return overwrite("/proc/sys/net/ipv6/conf/all/forwarding") }},
		{"write /proc/sysrq-trigger", func() error { return overwrite("/proc/sysrq-trigger") }},
		{"read the kernel's log", func() error {
			_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL,
				make([]byte, 64))
			return err
		}},
		{"read memory through /proc/kcore", func() error { return readSome("/proc/kcore") }},
		{"see disks of others", func() error { return listed("/sys/class/block") }},
		{"see virtual disks of others",
			func() error { return listed("/sys/devices/virtual/block") }},
		{"see cgroups", func() error { return listed("/sys/fs/cgroup") }},
		{"write to /sys", func() error { return overwrite("/sys/class/net/eth0/mtu") }},
		{"set the clock", func() error {
			return unix.Settimeofday(&unix.Timeval{Sec: time.Now().Unix()})
		}},
		{"change the host name", func() error { return unix.Sethostname([]byte("x")) }},
		{"add an address", addAddress},
		{"open a perf event", func() error {
			fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE}, -1, 0,
				-1, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
		{"look into PID 1", func() error { return readSome("/proc/1/environ") }},
		{"enter the namespaces of PID 1", func() error { return openDevice("/proc/1/ns/mnt") }},
	}
}

func openDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func addAddress() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr("fdaa:0:1:0:9:0:9:2/128")
	if err != nil {
		return err
	}
	return netlink.AddrAdd(link, address)
}

// overwrite writes back what is there, so that nothing is changed where it works.
func overwrite(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		old = []byte("0") // sysrq: a key that does nothing but set a log level
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(old)
	return err
}

func readSome(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 16))
	return err
}

// listed fails for a directory without anything in it.
func listed(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 0 {
		return os.ErrNotExist
	}
	return err
}

// spoof writes a whole packet, past the kernel's choice of a source address.
func spoof(source, dest, port string) error {
	src, err := netip.ParseAddr(source)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddr(dest)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW) // its headers are ours
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, datagram(src, dst, uint16(number)), 0,
		&unix.SockaddrInet6{Addr: dst.As16()})
}

func datagram(src, dst netip.Addr, port uint16) []byte {
	payload := []byte("spoofed")
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp[0:], 1234)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	binary.BigEndian.PutUint16(udp[6:], checksum(src, dst, udp))
	ip := make([]byte, 40, 40+len(udp))
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
	ip[6], ip[7] = unix.IPPROTO_UDP, 64
	s, d := src.As16(), dst.As16()
	copy(ip[8:], s[:])
	copy(ip[24:], d[:])
	return append(ip, udp...)
}

func checksum(src, dst netip.Addr, udp []byte) uint16 {
	s, d := src.As16(), dst.As16()
	all := append(append(s[:], d[:]...), 0, 0, 0, byte(len(udp)), 0, 0, 0, unix.IPPROTO_UDP)
	all = append(all, udp...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	sum := uint32(0)
	for i := 0; i < len(all); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func hear(port, seconds string) error {
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	bound, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{Port: number})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(time.Duration(bound) * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Println("listening"); err != nil { //nolint:forbidigo // a command
		return err
	}
	for {
		_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 64))
		if err != nil {
			return nil //nolint:nilerr // the time is over
		}
		if _, err := fmt.Println(from.Addr()); err != nil { //nolint:forbidigo // a command
			return err
		}
	}
}
