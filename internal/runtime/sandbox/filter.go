package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A VM's processes are root only within its user namespace, which the kernel checks. This filter is
// a second wall, for code of the kernel that is reached before that check, and for what it doesn't
// cover: whoever has a loop device open may let go of it, or put another file there.

// calls are the system calls that no process of a VM may make, by kind of program. As the filter
// passes on to all of a VM's processes, programs of 32 bits are thought of, too.
type calls struct {
	arch    uint32
	ioctl   uint32
	refused []uint32
}

// x32 marks the calls of programs with 32-bit pointers in 64-bit mode.
const x32 = 0x40000000

// refusedCalls are those for modules, another kernel, programs in the kernel, counters of the
// processor, ports, files by their number, swap space, and process accounting.
func refusedCalls() []calls {
	amd64 := []uint32{175, 313, 176, 246, 320, 321, 298, 172, 173, 304, 167, 168, 163}
	all := []calls{
		{unix.AUDIT_ARCH_X86_64, 16, amd64},
		{unix.AUDIT_ARCH_I386, 54,
			[]uint32{128, 350, 129, 283, 357, 336, 110, 101, 342, 87, 115, 51}},
		{unix.AUDIT_ARCH_AARCH64, 29,
			[]uint32{105, 273, 106, 104, 294, 280, 241, 265, 224, 225, 89}},
		{unix.AUDIT_ARCH_ARM, 54, []uint32{128, 379, 129, 347, 401, 386, 364, 371, 87, 115, 51}},
	}
	x := calls{arch: unix.AUDIT_ARCH_X86_64, ioctl: x32 | 514}
	for _, n := range amd64 {
		x.refused = append(x.refused, x32|n)
	}
	x.refused = append(x.refused, x32|528) // kexec_load has a number of its own there
	return append(all, x)
}

// loopIoctls are the first and the last number of an ioctl for loop devices and their control.
const loopIoctls, lastLoopIoctl = 0x4C00, 0x4CFF

// filterProgram refuses with EPERM what refusedCalls names, and ioctls of loop devices.
func filterProgram() []unix.SockFilter {
	const (
		numberAt, archAt, requestAt = 0, 4, 24 // in the kernel's struct seccomp_data
		load                        = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ifEqual                     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ifLess                      = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		give                        = unix.BPF_RET | unix.BPF_K
		refuse                      = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	var code []unix.SockFilter
	for _, c := range refusedCalls() {
		var block []unix.SockFilter
		block = append(block, unix.SockFilter{Code: load, K: numberAt})
		for _, n := range c.refused {
			block = append(block, unix.SockFilter{Code: ifEqual, K: n, Jf: 1},
				unix.SockFilter{Code: give, K: refuse})
		}
		block = append(block,
			unix.SockFilter{Code: ifEqual, K: c.ioctl, Jf: 4},
			unix.SockFilter{Code: load, K: requestAt},
			unix.SockFilter{Code: ifLess, K: loopIoctls, Jf: 2},
			unix.SockFilter{Code: ifLess, K: lastLoopIoctl + 1, Jt: 1},
			unix.SockFilter{Code: give, K: refuse})
		code = append(code, unix.SockFilter{Code: load, K: archAt},
			unix.SockFilter{Code: ifEqual, K: c.arch,
				Jf: uint8(len(block))}) //nolint:gosec // some 30 instructions
		code = append(code, block...)
	}
	return append(code, unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
}

// filterCalls puts the calling thread, and whatever it execs, under the filter.
func filterCalls() error {
	code := filterProgram()
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]} //nolint:gosec // some hundred
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&prog))) //nolint:gosec // no other way
	runtime.KeepAlive(code)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}
