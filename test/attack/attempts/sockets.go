package attempts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// sockets only opens them: what a family sends may leave the machine by ways that no test of ours
// has made.
func sockets() []Attempt {
	families := map[string]int{
		"VSOCK": unix.AF_VSOCK, "XDP": unix.AF_XDP, "ALG": unix.AF_ALG,
		"BLUETOOTH": unix.AF_BLUETOOTH, "TIPC": unix.AF_TIPC, "CAN": unix.AF_CAN,
		"PACKET": unix.AF_PACKET, "KEY": unix.AF_KEY, "RDS": unix.AF_RDS, "PPPOX": unix.AF_PPPOX,
		"KCM": unix.AF_KCM, "QIPCRTR": unix.AF_QIPCRTR, "SMC": unix.AF_SMC, "NFC": unix.AF_NFC,
		"RXRPC": unix.AF_RXRPC, "LLC": unix.AF_LLC, "AX25": unix.AF_AX25, "X25": unix.AF_X25,
		"PHONET": unix.AF_PHONET, "CAIF": unix.AF_CAIF, "IEEE802154": unix.AF_IEEE802154,
		"ISDN": unix.AF_ISDN, "APPLETALK": unix.AF_APPLETALK, "MCTP": unix.AF_MCTP,
	}
	var all []Attempt
	for name, family := range families {
		all = append(all, socket("a socket of "+name, unix.EAFNOSUPPORT,
			uintptr(family), unix.SOCK_DGRAM, 0)) //nolint:gosec // small
	}
	for name, protocol := range map[string]uintptr{
		"NETFILTER": unix.NETLINK_NETFILTER, "AUDIT": unix.NETLINK_AUDIT,
		"CRYPTO": unix.NETLINK_CRYPTO, "XFRM": unix.NETLINK_XFRM, "ISCSI": unix.NETLINK_ISCSI,
		"CONNECTOR": unix.NETLINK_CONNECTOR, "RDMA": unix.NETLINK_RDMA,
	} {
		all = append(all, socket("netlink of "+name, unix.EPROTONOSUPPORT, unix.AF_NETLINK,
			unix.SOCK_RAW, protocol))
	}
	return append(all,
		socket("a socket of VSOCK with bits that the kernel ignores", unix.EAFNOSUPPORT,
			1<<32|unix.AF_VSOCK, unix.SOCK_DGRAM, 0),
		socket("a socket of a family that no kernel has", unix.EAFNOSUPPORT, 999,
			unix.SOCK_DGRAM, 0),
		call("a pair of sockets of TIPC", unix.EAFNOSUPPORT, unix.SYS_SOCKETPAIR, unix.AF_TIPC,
			unix.SOCK_DGRAM, 0, 0),
	)
}

func socket(name string, want unix.Errno, family, kind, protocol uintptr) Attempt {
	return Attempt{name, []unix.Errno{want}, func() error {
		fd, err := raw(unix.SYS_SOCKET, family, kind, protocol)
		if err == nil {
			_ = unix.Close(int(fd)) //nolint:gosec // a descriptor is a small int
		}
		return err
	}}
}

// of32Bits are attempts of programs of 32 bits, which x86 hosts run too. Each is a program of its
// own.
func of32Bits() []Attempt {
	const socketcall, socketDirect, mount = 102, 359, 21
	return []Attempt{
		{"a socket of VSOCK, by socketcall of 32 bits", []unix.Errno{unix.ENOSYS},
			func() error { return run32(socketcall, 1, addressOf32Data) }},
		{"a socket of VSOCK, of 32 bits", []unix.Errno{unix.EAFNOSUPPORT},
			func() error { return run32(socketDirect, unix.AF_VSOCK, unix.SOCK_STREAM) }},
		{"mount, of 32 bits", []unix.Errno{unix.EPERM},
			func() error { return run32(mount, 0, 0) }},
	}
}

const (
	base32          = 0x8048000
	headers32       = 52 + 32
	addressOf32Data = base32 + headers32
)

// run32 runs a program of 32 bits that makes one call, and returns its error. The program begins
// with data: the arguments of a socketcall for a socket of VSOCK.
func run32(number, first, second uint32) error {
	le := binary.LittleEndian
	data := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, unix.AF_VSOCK),
		unix.SOCK_STREAM), 0)
	var code []byte
	for _, load := range []struct {
		opcode byte // mov to eax, ebx, ecx
		value  uint32
	}{{0xb8, number}, {0xbb, first}, {0xb9, second}} {
		code = le.AppendUint32(append(code, load.opcode), load.value)
	}
	code = append(code, 0x31, 0xd2, // xor edx, edx
		0xcd, 0x80, // int 0x80
		0xf7, 0xd8, // neg eax
		0x89, 0xc3, // mov ebx, eax
		0xb8, 1, 0, 0, 0, // mov eax, exit
		0xcd, 0x80)
	elf := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	elf = le.AppendUint16(le.AppendUint16(elf, 2), 3) // executable, i386
	for _, word := range []uint32{1, addressOf32Data + uint32(len(data)), 52, 0, 0} {
		elf = le.AppendUint32(elf, word)
	}
	for _, half := range []uint16{52, 32, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, half)
	}
	size := uint32(headers32 + len(data) + len(code)) //nolint:gosec // some hundred bytes
	for _, word := range []uint32{1, 0, base32, base32, size, size, 5, 0x1000} {
		elf = le.AppendUint32(elf, word)
	}
	dir, err := os.MkdirTemp("", "attempt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "call32")
	if err := os.WriteFile(path, append(append(elf, data...), code...), 0o700); err != nil {
		return err
	}
	err = exec.Command(path).Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return err
	case exit.ExitCode() < 0:
		return fmt.Errorf("program of 32 bits: %w", err)
	case exit.ExitCode() > 250: // minus a descriptor
		return nil
	}
	return unix.Errno(exit.ExitCode()) //nolint:gosec // checked above
}
