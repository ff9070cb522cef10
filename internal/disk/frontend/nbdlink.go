package frontend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Numbers of the kernel's netlink interface to its NBD client, as linux/nbd-netlink.h names them
// without NBD_.
const (
	nbdFamily  = "nbd"
	nbdVersion = 1

	nbdConnect     = 1
	nbdDisconnect  = 2
	nbdReconfigure = 3

	nbdAttrIndex       = 1
	nbdAttrSize        = 2
	nbdAttrBlockSize   = 3
	nbdAttrTimeout     = 4
	nbdAttrServerFlags = 5
	nbdAttrClientFlags = 6
	nbdAttrSockets     = 7
	nbdAttrBackend     = 10

	nbdSockItem = 1
	nbdSockFD   = 1

	nbdDisconnectOnClose = 1 << 1 // of client flags
)

// nbdLink is the kernel's NBD client as this process reaches it.
type nbdLink struct{ family uint16 }

// openNBDLink finds the client. It is Unsupported where the kernel has none, or none for this
// network namespace.
func openNBDLink() (nbdLink, error) {
	family, err := genlFamily(nbdFamily)
	if err != nil {
		return nbdLink{}, errs.Wrap(errs.Unsupported, err, "find the kernel's NBD client").
			WithRemedy(
				"load the module: modprobe nbd; it serves the initial network namespace only")
	}
	return nbdLink{family}, nil
}

// genlFamily returns the number that the kernel has given to a family of generic netlink.
func genlFamily(name string) (uint16, error) {
	answers, err := genl(nl.GENL_ID_CTRL, 0, nl.GENL_CTRL_CMD_GETFAMILY, nl.GENL_CTRL_VERSION,
		nl.NewRtAttr(nl.GENL_CTRL_ATTR_FAMILY_NAME, nl.ZeroTerminated(name)))
	if err != nil {
		return 0, err
	}
	id, err := genlValue(answers, nl.GENL_CTRL_ATTR_FAMILY_ID, 2)
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint16(id), nil
}

// genl asks a family of generic netlink for something. It is not by the library's own calls: its
// header has two bytes of the four that it sends, and the others are what lies behind it in memory,
// some other goroutine's.
func genl(family uint16, flags int, command, version uint8, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(family), flags)
	req.AddRawData([]byte{command, version, 0, 0})
	for _, a := range attrs {
		req.AddRawData(a.Serialize())
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

// genlValue returns the first attribute of a kind that has at least size bytes.
func genlValue(answers [][]byte, kind uint16, size int) ([]byte, error) {
	for _, a := range answers {
		if len(a) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(a[nl.SizeofGenlmsg:])
		if err != nil {
			return nil, errs.Wrap(errs.Internal, err, "read the kernel's answer")
		}
		for _, at := range attrs {
			if at.Attr.Type == kind && len(at.Value) >= size {
				return at.Value, nil
			}
		}
	}
	return nil, errs.New(errs.Internal, "the kernel's answer has no attribute %d", kind)
}

// HasKernelNBD reports whether the kernel's NBD client is there for this process.
func HasKernelNBD() bool {
	_, err := openNBDLink()
	return err == nil
}

func (l nbdLink) do(command uint8, attrs ...*nl.RtAttr) ([][]byte, error) {
	return genl(l.family, unix.NLM_F_ACK, command, nbdVersion, attrs...)
}

func attr32(kind int, v uint32) *nl.RtAttr {
	return nl.NewRtAttr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

func attr64(kind int, v uint64) *nl.RtAttr {
	return nl.NewRtAttr(kind, binary.NativeEndian.AppendUint64(nil, v))
}

// connect makes a free NBD device of a socket, and returns its number.
func (l nbdLink) connect(size int64, flags uint64, backend string, socket int) (uint32, error) {
	list := nl.NewRtAttr(nbdAttrSockets|unix.NLA_F_NESTED, nil)
	item := nl.NewRtAttr(nbdSockItem|unix.NLA_F_NESTED, nil)
	item.AddChild(attr32(nbdSockFD, uint32(socket))) //nolint:gosec // a descriptor
	list.AddChild(item)
	// No request has a time to end: how long the store is waited for is the engine's business. And
	// no time is given for a connection to come back: one that ends has ended for good, and EIO is
	// the answer.
	answers, err := l.do(nbdConnect,
		attr64(nbdAttrSize, uint64(size)), //nolint:gosec // checked to be positive
		attr64(nbdAttrBlockSize, disk.BlockSize),
		attr64(nbdAttrTimeout, 0),
		attr64(nbdAttrServerFlags, flags),
		nl.NewRtAttr(nbdAttrBackend, nl.ZeroTerminated(backend)),
		list)
	if err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "connect an NBD device")
	}
	index, err := genlValue(answers, nbdAttrIndex, 4)
	if err != nil {
		return 0, errs.Wrap(errs.Internal, err, "find which NBD device was connected")
	}
	return binary.NativeEndian.Uint32(index), nil
}

// endOnClose has the kernel end the device when the last one who has it open lets go of it.
func (l nbdLink) endOnClose(index uint32, backend string) error {
	_, err := l.do(nbdReconfigure, attr32(nbdAttrIndex, index),
		attr64(nbdAttrClientFlags, nbdDisconnectOnClose),
		nl.NewRtAttr(nbdAttrBackend, nl.ZeroTerminated(backend)))
	return err
}

// resize changes the size of a device of ours.
func (l nbdLink) resize(index uint32, backend string, size int64) error {
	_, err := l.do(nbdReconfigure, attr32(nbdAttrIndex, index),
		attr64(nbdAttrSize, uint64(size)), //nolint:gosec // positive
		nl.NewRtAttr(nbdAttrBackend, nl.ZeroTerminated(backend)))
	return err
}

// disconnect ends a device of ours at once, whoever uses it. One that isn't any more is no error.
func (l nbdLink) disconnect(index uint32, backend string) error {
	if backendOf(fmt.Sprintf("/sys/block/nbd%d", index)) != backend {
		return nil
	}
	_, err := l.do(nbdDisconnect, attr32(nbdAttrIndex, index))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // it has ended just now
	}
	return err
}

// letGo ends a device when nobody has it open any more, which may be now. The kernel makes sure
// that it is this backend's, not one that has got its number since.
func (l nbdLink) letGo(path string, index uint32, backend string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return errors.Join(l.endOnClose(index, backend), unix.Close(fd))
}

// backendOf returns what serves the NBD device with this directory in sysfs, or "".
func backendOf(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "backend"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// nbdBackend names what serves a device: this process, in its pid namespace, and the disk.
func nbdBackend(name string) (string, error) {
	space, err := pidSpace()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%s-%d-%s", namePrefix, space, os.Getpid(), name), nil
}

func pidSpace() (string, error) {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", errs.Wrap(errs.Internal, err, "identify the pid namespace")
	}
	return strings.Trim(link, "pid:[]"), nil
}

// endOrphans ends the devices whose process, of this pid namespace, has died. The kernel keeps them
// configured, and what was under way when the process died waits: ended, it fails, as does all that
// comes.
func (l nbdLink) endOrphans() error {
	space, err := pidSpace()
	if err != nil {
		return err
	}
	found, err := filepath.Glob("/sys/block/nbd*/backend")
	if err != nil {
		return err
	}
	for _, file := range found {
		dir := filepath.Dir(file)
		backend := backendOf(dir)
		rest, ours := strings.CutPrefix(backend, namePrefix+space+"-")
		text, _, _ := strings.Cut(rest, "-")
		if pid, err := strconv.Atoi(text); !ours || err != nil || pid <= 0 ||
			!errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		index, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(dir), "nbd"), 10, 32)
		if err != nil {
			continue
		}
		if err := l.disconnect(uint32(index), backend); err != nil {
			return errs.Wrap(errs.Unavailable, err, "end nbd%d, whose process has died", index)
		}
	}
	return nil
}

// setQueue bounds the size of one request to an NBD device, and has who makes a request send it
// too. The kernel's default, a scheduler, hands each to a thread of the kernel first: on a device
// without a head to move, that only costs.
func setQueue(index uint32) error {
	for _, o := range [][2]string{{"max_sectors_kb", strconv.Itoa(nbdMaxRequestKiB)},
		{"scheduler", "none"}} {
		if err := os.WriteFile(fmt.Sprintf("/sys/block/nbd%d/queue/%s", index, o[0]), []byte(o[1]),
			0); err != nil {
			return errs.Wrap(errs.Unavailable, err, "set %s of nbd%d", o[0], index)
		}
	}
	return nil
}

// nbdNode returns the node of an NBD device, which it makes if there's none.
func nbdNode(devDir string, index uint32) (path string, created bool, err error) {
	name := fmt.Sprintf("nbd%d", index)
	text, err := os.ReadFile(filepath.Join("/sys/block", name, "dev"))
	if err != nil {
		return "", false, errs.Wrap(errs.Unavailable, err, "find the number of %s", name)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d:%d", &major, &minor); err != nil {
		return "", false, errs.Wrap(errs.Internal, err, "the number of %s is %q", name, text)
	}
	path = filepath.Join(devDir, name)
	created, err = ensureNode(path, unix.S_IFBLK, major, minor)
	return path, created, err
}
