package inner

import (
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaceFlags are the clone flags that would make a new namespace.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS |
	unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// low32 masks what the kernel takes of an argument that is an int to it. A comparison of all 64
// bits could be got round by setting others.
const low32 = 0xffffffff

// seccomp allows the system calls that programs need, and no other: what a later kernel adds is
// closed until somebody opens it here. A call that is known and refused fails with EPERM, any other
// with ENOSYS, so that libraries fall back to an older one. What it says of sockets is half of it:
// see filterSockets.
func seccomp() *specs.LinuxSeccomp {
	notThere := uint(unix.ENOSYS)
	rules := []specs.LinuxSyscall{
		{Names: allowed(), Action: specs.ActAllow},
		refuse(unix.EPERM, kernelWide()...),
		refuse(unix.EPERM, attackSurface()...),
		// Its flags are in memory, where a filter can't see them; libraries fall back to clone.
		refuse(unix.ENOSYS, "clone3"),
	}
	rules = append(rules, cloneRules()...)
	return &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &notThere,
		Architectures:   architectures(runtime.GOARCH),
		Syscalls:        append(rules, personalityRules()...),
	}
}

// architectures are those whose programs a host runs.
func architectures(host string) []specs.Arch {
	if host == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}

func refuse(errno unix.Errno, names ...string) specs.LinuxSyscall {
	number := uint(errno)
	return specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: &number}
}

// when limits a rule to calls one of whose arguments has a value in the bits of a mask.
func when(rule specs.LinuxSyscall, index uint, mask, value uint64) specs.LinuxSyscall {
	rule.Args = append(slices.Clone(rule.Args), specs.LinuxSeccompArg{Index: index,
		Value: mask, ValueTwo: value, Op: specs.OpMaskedEqual})
	return rule
}

func allow(name string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow}
}

// cloneRules refuse a clone with any of the namespace flags. Each needs a rule of its own, because
// a masked comparison can only test for equality.
func cloneRules() []specs.LinuxSyscall {
	rules := []specs.LinuxSyscall{when(allow("clone"), 0, namespaceFlags, 0)}
	for bit := uint64(1); bit <= namespaceFlags; bit <<= 1 {
		if namespaceFlags&bit != 0 {
			rules = append(rules, when(refuse(unix.EPERM, "clone"), 0, bit, bit))
		}
	}
	return rules
}

// personalityRules allow the personalities of common programs, and to ask which one it is. Others
// turn off what makes a fault hard to exploit, such as random addresses.
func personalityRules() []specs.LinuxSyscall {
	const bits32, uname26, ask = 0x8, 0x20000, 0xffffffff
	var rules []specs.LinuxSyscall
	for _, p := range []uint64{0, bits32, uname26, uname26 | bits32, ask} {
		rules = append(rules, when(allow("personality"), 0, low32, p))
	}
	return rules
}
