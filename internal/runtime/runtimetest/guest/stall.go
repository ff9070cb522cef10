package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
)

// imagePath is an ext4 image in the release; see runtimetest.Release.
const imagePath = "/usr/share/ext4.img"

// diskName is the name of the disk's file, by which runtimetest finds what is left of it.
const diskName = "sluice-stalled"

// serveDisk serves a directory with a writable copy of the image by FUSE, as a disk's server would.
func serveDisk(dir string) error {
	backing := filepath.Join(dir, "backing")
	if err := os.MkdirAll(backing, 0o700); err != nil {
		return err
	}
	image, err := os.ReadFile(imagePath)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(backing, diskName), image, 0o600); err != nil {
		return err
	}
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		return err
	}
	at, direct := filepath.Join(dir, "fuse"), true
	if diskbroker.Find() != nil {
		at, direct = "/dev/fd/3", false // what a broker has connected
	}
	server, err := fuse.NewServer(fs.NewNodeFS(root, &fs.Options{}), at, &fuse.MountOptions{
		DirectMountStrict: direct, FsName: "disk", DisableXAttrs: true})
	if err != nil {
		return err
	}
	server.Serve()
	return nil
}

// writeDisk writes and fsyncs a file again and again.
func writeDisk(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for i := int64(0); ; i++ {
		if _, err := f.WriteAt(make([]byte, 65536), i%64*65536); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}

// stall mounts ext4 on a loop device on a FUSE file, has a child write and fsync there, and then
// stops the server. It returns when the child hangs in the kernel. How is "stop", or "frozen" for
// by a v1 freezer.
func stall(how string) (answer, error) {
	dir := "/tmp/stall"
	mnt := filepath.Join(dir, "mnt")
	for _, d := range []string{mnt, filepath.Join(dir, "fuse")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return answer{}, err
		}
	}
	server, err := mountStalling(dir, mnt)
	if err != nil {
		return answer{}, err
	}
	writer := exec.Command("/proc/self/exe", "write-disk", filepath.Join(mnt, "file"))
	if err := writer.Start(); err != nil {
		return answer{}, err
	}
	err = wait(func() bool {
		st, err := os.Stat(filepath.Join(mnt, "file"))
		return err == nil &&
			st.Size() > 1<<20
	})
	if err != nil {
		return answer{}, fmt.Errorf("wait for writes: %w", err)
	}
	if how == "frozen" {
		err = freezeV1(server.Process.Pid)
	} else {
		err = server.Process.Signal(syscall.SIGSTOP)
	}
	if err != nil {
		return answer{}, err
	}
	hangs := 0
	var stat []byte
	err = wait(func() bool { // for good: seen twenty times in a row
		if stat = statsOf(writer.Process.Pid); strings.Contains(string(stat), ") D ") {
			hangs++
		} else {
			hangs = 0
		}
		return hangs >= 20
	})
	if err != nil {
		err = fmt.Errorf("wait for the writer to hang: %w; it is %.40s", err, stat)
	}
	return answer{Number: int64(writer.Process.Pid)}, err
}

// mountStalling starts a server of a disk, and mounts what it serves on mnt: with the privileges of
// this VM's kernel, or by its broker.
func mountStalling(dir, mnt string) (server *exec.Cmd, err error) {
	server = exec.Command("/proc/self/exe", "serve-disk", dir)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	broker := diskbroker.Find()
	if broker == nil {
		if err := server.Start(); err != nil {
			return nil, err
		}
		disk := filepath.Join(dir, "fuse", diskName)
		err := wait(func() bool { _, err := os.Stat(disk); return err == nil })
		if err != nil {
			return nil, fmt.Errorf("wait for FUSE: %w", err)
		}
		return server, mountLoop(disk, mnt)
	}
	ctx := context.Background()
	conn, err := broker.Connect(ctx, diskName)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(conn), "connection")
	server.ExtraFiles = []*os.File{f}
	if err := errors.Join(server.Start(), f.Close()); err != nil { // the connection ends with it
		return nil, err
	}
	if _, err := broker.Attach(ctx); err != nil {
		return nil, err
	}
	tree, err := broker.Mount(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(tree) }()
	return server, unix.MoveMount(tree, "", unix.AT_FDCWD, mnt, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// statsOf returns the state of each of a process's threads: which of them writes is Go's to choose.
func statsOf(pid int) []byte {
	var all []byte
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		all = append(all, b...)
	}
	return all
}

func mountLoop(file, mnt string) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for range 64 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return err
		}
		err = mountOnLoop(n, f, mnt)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return errors.New("no free loop device")
}

func mountOnLoop(n int, f *os.File, mnt string) error {
	node := "/dev/loop" + strconv.Itoa(n)
	err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n))))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	loop, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = loop.Close() }() // the mount keeps it
	config := unix.LoopConfig{Fd: uint32(f.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return err
	}
	return unix.Mount(node, mnt, "ext4", 0, "")
}

// freezeV1 freezes a process by a v1 freezer of the VM's own.
func freezeV1(pid int) error {
	dir := "/sys/fs/cgroup/freezer/frozen"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)),
		0); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("FROZEN"), 0); err != nil {
		return err
	}
	return wait(func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return strings.TrimSpace(string(b)) == "FROZEN"
	})
}

func wait(done func() bool) error {
	for range 6000 {
		if done() {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("took more than 30 s")
}
