package inner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Machine is the machine that a container becomes.
type Machine struct {
	ID       string
	Hostname string
	Address  netip.Addr // its private address, /128
	Disk     string     // where its disk is mounted in the VM
}

// Enter gives the container the machine's root and identity. Repeating it after success does
// nothing. After an error the container may be half changed, and must be killed.
func (c *Container) Enter(ctx context.Context, m Machine) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Entered() {
		return nil
	}
	if c.halfEntered() {
		return errs.New(errs.Unavailable,
			"an earlier attempt to enter the machine's root was cut off")
	}
	if err := writeIdentity(m); err != nil {
		return err
	}
	if err := os.WriteFile(c.enteringMark(), nil, 0o600); err != nil {
		return fmt.Errorf("note that the root is changed: %w", err)
	}
	return c.enterRoot(ctx, m.Disk, m.Hostname)
}

func (c *Container) enteringMark() string { return filepath.Join(c.cfg.Dir, "entering") }

// halfEntered reports whether an Enter was begun and not finished. No process of the user has run
// then, so the container can be made again.
func (c *Container) halfEntered() bool {
	_, err := os.Stat(c.enteringMark())
	return err == nil && !c.Entered()
}

// Connect gives the container the machine's address and opens the way between it and the worker, on
// which packets have at most mtu bytes; 0: as the links have it. It needs no disk, so it can run
// while the disk is being attached. Idempotent.
func (c *Container) Connect(address netip.Addr, mtu int) error {
	return setAddress(c.pid, c.cfg.HostLink, address, mtu)
}

// Entered reports whether the machine's disk is the container's root.
func (c *Container) Entered() bool { return entered(c.pid) }

// DialPort connects to a port of the machine from inside the container: at its private address or,
// if only that listens, at its loopback. So the VM needs no open path into the container.
func (c *Container) DialPort(ctx context.Context, address netip.Addr,
	port uint16) (net.Conn, error) {
	targets := []netip.Addr{address, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	var failed []error
	for _, to := range targets {
		if !to.IsValid() {
			continue
		}
		var conn net.Conn
		err := within(c.pid, []string{"net"}, func() error {
			var d net.Dialer
			var dialErr error
			conn, dialErr = d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, port).String())
			return dialErr
		})
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errs.Wrap(errs.Unavailable, failed[0],
		"nothing answers on port %d of the machine", port).
		WithRemedy("see that the service runs and listens on port %d", port)
}

const (
	hostsBegin = "# sluice: begin"
	hostsEnd   = "# sluice: end"
)

// writeIdentity writes the machine's name and address into its files, and leaves alone what the
// user has put there. It doesn't rewrite a file that is already right, so that a move dirties no
// disk.
func writeIdentity(m Machine) error {
	root, err := os.OpenRoot(m.Disk)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open the disk's root")
	}
	defer root.Close()
	if err := root.Mkdir("etc", 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return errs.Wrap(errs.Unavailable, err, "make /etc")
	}
	return errors.Join(
		edit(root, "etc/hostname", 0o644, func(string) string { return m.Hostname + "\n" }),
		edit(root, "etc/hosts", 0o644, func(old string) string { return hosts(old, m) }),
		edit(root, "etc/resolv.conf", 0o644, func(old string) string {
			if strings.TrimSpace(old) != "" {
				return old
			}
			return "# no resolver is configured for this machine\n"
		}),
		// Always set: otherwise all machines of one image would share its machine-id.
		edit(root, "etc/machine-id", 0o444, func(string) string { return machineID(m.ID) + "\n" }),
	)
}

// maxEdited bounds what is read of a user's file. The longest lists of hosts that people use have
// fewer bytes, and what is longer fills the memory of the platform.
const maxEdited = 4 << 20

// edit replaces the content of a plain file by the result of change. Links and other special files
// are the user's own and stay, as does a file of more than 4 MiB.
func edit(root *os.Root, name string, mode os.FileMode, change func(old string) string) error {
	info, err := root.Lstat(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errs.Wrap(errs.Unavailable, err, "look at /%s", name)
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxEdited) {
		return nil
	}
	var old string
	if err == nil {
		if old, err = readShort(root, name); err != nil {
			return err
		}
	}
	now := change(old)
	if err == nil && now == old {
		return nil
	}
	if err := root.WriteFile(name, []byte(now), mode); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write /%s", name)
	}
	return nil
}

// readShort reads a file of at most 4 MiB, as it was when it was looked at: no user code runs yet.
func readShort(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "open /%s", name)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEdited))
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "read /%s", name)
	}
	return string(data), nil
}

// hosts returns /etc/hosts with the user's lines kept and Sluice's replaced.
func hosts(old string, m Machine) string {
	var keep strings.Builder
	ours := false
	for line := range strings.Lines(old) {
		switch strings.TrimSpace(line) {
		case hostsBegin:
			ours = true
		case hostsEnd:
			ours = false
		default:
			if !ours {
				keep.WriteString(strings.TrimRight(line, "\n") + "\n")
			}
		}
	}
	block := hostsBegin + "\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	if m.Address.IsValid() {
		block += m.Address.String() + " " + m.Hostname + "\n"
	}
	return block + hostsEnd + "\n" + keep.String()
}
