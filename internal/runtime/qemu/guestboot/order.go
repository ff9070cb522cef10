package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
)

// orderInterval is the interval between reads of the boot disk until the order is there.
const orderInterval = 2 * time.Millisecond

// diskWith returns the node, below /dev, of the disk with a serial number; not exist where there is
// none.
func diskWith(serial string) (string, error) {
	found, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return "", err
	}
	for _, file := range found {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", &fs.PathError{Op: "find disk", Path: serial, Err: fs.ErrNotExist}
}

// awaitOrder reads the boot disk, past the page cache, until it has an order. Meanwhile it prints
// MarkWarm once the platform is warm.
func awaitOrder() (bootdisk.Order, error) {
	path, err := diskWith(bootdisk.SerialBoot)
	if err != nil {
		return bootdisk.Order{}, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return bootdisk.Order{}, fmt.Errorf("open boot disk: %w", err)
	}
	disk := os.NewFile(uintptr(fd), path)
	defer func() { _ = disk.Close() }()
	// Mapped, because such reads go to whole pages only.
	buffer, err := unix.Mmap(-1, 0, bootdisk.Size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return bootdisk.Order{}, fmt.Errorf("allocate buffer: %w", err)
	}
	defer func() { _ = unix.Munmap(buffer) }()
	for warm := false; ; time.Sleep(orderInterval) {
		began := time.Now()
		order, there, err := bootdisk.Read(disk, buffer)
		if there || err != nil {
			// An emulated CPU takes a good part of a second to read it. It was not there the last
			// time that we looked, so that it is hardly older than this read.
			order.Clock = order.Clock.Add(time.Since(began))
			return order, err
		}
		if _, err := os.Lstat(guestapi.WarmFile); err == nil && !warm {
			warm = true
			fmt.Println(bootdisk.MarkWarm)
		}
	}
}

// follow makes this VM the one that the order names.
func follow(o bootdisk.Order) error {
	now := unix.NsecToTimespec(o.Clock.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	if err := reseed(o.Seed); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := os.WriteFile(guestapi.BootFile+".new", o.Boot, 0o600); err != nil {
		return err
	}
	return os.Rename(guestapi.BootFile+".new", guestapi.BootFile)
}

// entropy is the kernel's struct rand_pool_info.
type entropy struct {
	Bits  int32
	Bytes int32
	Data  [64]byte
}

const (
	rndAddEntropy = 0x40085203
	rndReseedCRNG = 0x5207
)

// reseed gives the kernel new random numbers from now on: the VM may be one of many that were saved
// as one.
func reseed(seed []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open random numbers: %w", err)
	}
	defer func() { _ = f.Close() }()
	e := entropy{Bytes: int32(min(len(seed), len(entropy{}.Data)))}
	e.Bits = e.Bytes * 8
	copy(e.Data[:], seed)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy,
		uintptr(unsafe.Pointer(&e))) //nolint:gosec // no other way
	if errno != 0 {
		return fmt.Errorf("add entropy: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 {
		return fmt.Errorf("reseed random numbers: %w", errno)
	}
	return nil
}
