package inner

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// families are those of sockets that a machine has a use for. Others reach what no network
// namespace holds, such as the host's hypervisor, or code of the kernel that few have looked at.
// The one of whole frames is not among them: who has it can be anybody on the machine's link.
func families() []uint32 { return []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6} }

// netlinkProtocols are those of ip, ss and udev. Programs that find none of the audit system, which
// answers the host only, take it that the kernel has no such system.
func netlinkProtocols() []uint32 {
	return []uint32{unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG, unix.NETLINK_KOBJECT_UEVENT,
		unix.NETLINK_GENERIC}
}

// socketCall is a call that makes sockets, as one kind of program says it.
type socketCall struct {
	arch, number uint32
	hidden       bool // its arguments are in memory, where a filter can't see them
}

func socketCalls() []socketCall {
	const x32 = 0x40000000
	return []socketCall{ // socket and socketpair
		{arch: unix.AUDIT_ARCH_X86_64, number: 41}, {arch: unix.AUDIT_ARCH_X86_64, number: 53},
		{arch: unix.AUDIT_ARCH_X86_64, number: x32 | 41},
		{arch: unix.AUDIT_ARCH_X86_64, number: x32 | 53},
		{arch: unix.AUDIT_ARCH_I386, number: 359}, {arch: unix.AUDIT_ARCH_I386, number: 360},
		{arch: unix.AUDIT_ARCH_I386, number: 102, hidden: true}, // socketcall
		{arch: unix.AUDIT_ARCH_AARCH64, number: 198}, {arch: unix.AUDIT_ARCH_AARCH64, number: 199},
		{arch: unix.AUDIT_ARCH_ARM, number: 281}, {arch: unix.AUDIT_ARCH_ARM, number: 288},
		{arch: unix.AUDIT_ARCH_ARM, number: 102, hidden: true},
	}
}

// filterSockets lets the calling thread, and what it starts from now on, open sockets of the
// machine's families only. The thread can't be freed of it. It needs CAP_SYS_ADMIN.
//
// The container runtime's library can't say it: of a rule about the family it makes, for programs
// of 32 bits, one that allows any family.
func filterSockets() error {
	code := socketProgram()
	prog := unix.SockFprog{Len: uint16(len(code)), //nolint:gosec // some hundred instructions
		Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&prog))) //nolint:gosec // no other way
	runtime.KeepAlive(code)
	if errno != 0 {
		return fmt.Errorf("filter the families of sockets: %w", errno)
	}
	return nil
}

const (
	loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	ifEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	give     = unix.BPF_RET | unix.BPF_K
)

// socketProgram tests nothing but the number of a call that makes no socket, so the kernel records
// once that it passes. Of arguments it sees what the kernel takes of them: the lower 32 bits.
func socketProgram() []unix.SockFilter {
	const numberAt, archAt = 0, 4 // in the kernel's struct seccomp_data
	var code []unix.SockFilter
	for _, c := range socketCalls() {
		judge := judgeFamily()
		if c.hidden {
			judge = refuseWith(unix.ENOSYS)
		}
		skip := uint8(len(judge)) //nolint:gosec // a dozen
		code = slices.Concat(code, []unix.SockFilter{
			{Code: loadWord, K: archAt}, {Code: ifEqual, K: c.arch, Jf: skip + 2},
			{Code: loadWord, K: numberAt}, {Code: ifEqual, K: c.number, Jf: skip},
		}, judge)
	}
	return append(code, unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
}

// judgeFamily are the instructions that give the verdict on a call by its family and protocol.
func judgeFamily() []unix.SockFilter {
	const familyAt, protocolAt = 16, 32 // little endian
	code := []unix.SockFilter{{Code: loadWord, K: familyAt}}
	code = append(code, allowThese(families())...)
	byProtocol := slices.Concat([]unix.SockFilter{{Code: loadWord, K: protocolAt}},
		allowThese(netlinkProtocols()), refuseWith(unix.EPROTONOSUPPORT))
	return slices.Concat(code, []unix.SockFilter{{Code: ifEqual, K: unix.AF_NETLINK,
		Jf: uint8(len(byProtocol))}}, //nolint:gosec // a dozen
		byProtocol, refuseWith(unix.EAFNOSUPPORT))
}

func allowThese(values []uint32) []unix.SockFilter {
	var code []unix.SockFilter
	for _, v := range values {
		code = append(code, unix.SockFilter{Code: ifEqual, K: v, Jf: 1},
			unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
	}
	return code
}

func refuseWith(errno unix.Errno) []unix.SockFilter {
	return []unix.SockFilter{{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}}
}
