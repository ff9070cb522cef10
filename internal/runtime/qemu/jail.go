package qemu

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// jail is all that a QEMU process has of its host: these files, at their own paths, and the
// descriptors that it is started with. It runs under an id that nothing else has.
type jail struct {
	Root     string   `json:"root"` // an empty directory
	ID       int      `json:"id"`   // of its user and group
	ReadOnly []string `json:"read_only"`
	Own      []string `json:"own"`      // files that it writes
	Devices  []string `json:"devices"`  // as a worker has them
	MaxFile  uint64   `json:"max_file"` // bytes that a file may grow to
	Program  string   `json:"program"`
	Args     []string `json:"args"`
}

const (
	// jailArg0 is the argv[0] by which this program knows that it has to become a jailed QEMU.
	jailArg0 = "sluice-qemu-jail"
	jailEnv  = "SLUICE_QEMU_JAIL"

	// jailDir, in a VM's directory, is where its QEMU's root is in a mount namespace of its own.
	jailDir = "jail"

	// firstID is the first of the ids of QEMU processes: far above those of people and of
	// containers.
	firstID = 0x60000000
	idBits  = 28

	// spareFile is what a saved VM may have beyond its memory, in bytes.
	spareFile = 64 << 20
)

// jailID returns the id of a VM's QEMU. It follows from the VM's, which is random.
func jailID(id fleet.VMID) (int, error) {
	n, err := strconv.ParseUint(string(id), 16, 32)
	if err != nil {
		return 0, errs.Wrap(errs.Invalid, err, "VM id %q", id)
	}
	return firstID + int(n&(1<<idBits-1)), nil //nolint:gosec // 28 bits
}

// library is what QEMU loads code and firmware from; and whether memory may be promised that isn't
// there, which it asks before it reserves none.
func library() []string {
	return []string{"/proc/sys/vm/overcommit_memory", "/lib", "/lib64", "/usr/lib", "/usr/lib64",
		"/usr/local/lib", "/etc/ld.so.cache", "/usr/share/qemu", "/usr/share/seabios"}
}

// jailOf makes the files of a VM readable to its QEMU, and returns the jail that has them.
func (v *vm) jailOf(p plan, program string, args []string) (jail, error) {
	id, err := jailID(p.id)
	if err != nil {
		return jail{}, err
	}
	j := jail{Root: filepath.Join(v.Dir(), jailDir), ID: id,
		ReadOnly: append(library(), program, p.Kernel, p.Initrd, p.Image),
		Own:      []string{filepath.Join(v.Dir(), bootFile), v.ConsolePath()},
		Devices:  []string{"/dev/null", "/dev/zero", "/dev/urandom"},
		MaxFile:  uint64(max(p.cacheBytes, baseMiB<<20+spareFile)), //nolint:gosec // a size
		Program:  program, Args: args}
	if p.Accel.KVM {
		j.Devices = append(j.Devices, "/dev/kvm")
	}
	if p.cacheBytes > 0 {
		j.Own = append(j.Own, filepath.Join(v.Dir(), cacheFile))
	}
	if err := os.Mkdir(j.Root, 0o755); err != nil && !os.IsExist(err) {
		return jail{}, errs.Wrap(errs.Internal, err, "make root of QEMU of VM %s", p.id)
	}
	// The release is no secret, and all QEMU processes of a worker share this file.
	if err := os.Chmod(p.Image, 0o444); err != nil { //nolint:gosec // as the comment says
		return jail{}, errs.Wrap(errs.Internal, err, "let QEMU read the release's image")
	}
	for _, file := range j.Own {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return jail{}, errs.Wrap(errs.Internal, err, "make a file of VM %s", p.id)
		}
		err = f.Chown(id, id)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return jail{}, errs.Wrap(errs.Internal, err, "give QEMU a file of VM %s", p.id)
		}
	}
	return j, nil
}

// command starts Child, which enters the jail, in namespaces of its own and a VM's cgroup. It hands
// on some files, from descriptor 3 on.
func (j jail) command(cgroup, log *os.File, pass []*os.File) (*exec.Cmd, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode the jail of QEMU")
	}
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{jailArg0}, Dir: "/",
		// a Go program that does little needs few threads, and no collector
		Env:    []string{jailEnv + "=" + string(text), "GOMAXPROCS=1", "GOGC=off"},
		Stdout: log, Stderr: log, ExtraFiles: pass,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
				unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
		},
	}, nil
}
