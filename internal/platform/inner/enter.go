package inner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Machine is what the container becomes.
type Machine struct {
	ID       string
	Hostname string
	Address  netip.Addr // its private address, /128
	Disk     string     // where its disk is mounted in the VM
}

// Enter makes the container the machine: its root and its identity. Once it has succeeded,
// repeating it does nothing. After an error the container is to be killed: it may be half-way.
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
	return enterRoot(c.pid, m.Disk, m.Hostname)
}

func (c *Container) enteringMark() string { return filepath.Join(c.cfg.Dir, "entering") }

// halfEntered reports whether an Enter was begun and not ended. Nothing of the user's has run then,
// and such a container is to be made again.
func (c *Container) halfEntered() bool {
	_, err := os.Stat(c.enteringMark())
	return err == nil && !c.Entered()
}

// Connect gives the container the machine's address and opens the way between it and the worker. It
// needs no disk, so it can be done while that is attached. Repeatable.
func (c *Container) Connect(address netip.Addr) error {
	return setAddress(c.pid, c.cfg.HostLink, address)
}

// Entered reports whether the machine's disk is the container's root.
func (c *Container) Entered() bool { return entered(c.pid) }

// DialPort connects to a port of the machine from inside, so that nothing between the VM and the
// container has to be open: to its private address, or where only that listens, to its loopback.
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

// writeIdentity makes the machine's files agree with its name and address, and leaves alone what
// the user has put there. A file whose content is right isn't written: a move shall not dirty the
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
		// Always ours: an image or a fork would hand its own to all that are made from it.
		edit(root, "etc/machine-id", 0o444, func(string) string { return machineID(m.ID) + "\n" }),
	)
}

// edit replaces a file's content by what change makes of it. A link or anything else that isn't a
// plain file is the user's own arrangement and stays.
func edit(root *os.Root, name string, mode os.FileMode, change func(old string) string) error {
	info, err := root.Lstat(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errs.Wrap(errs.Unavailable, err, "look at /%s", name)
	}
	if err == nil && !info.Mode().IsRegular() {
		return nil
	}
	var old string
	if err == nil {
		data, err := root.ReadFile(name)
		if err != nil {
			return errs.Wrap(errs.Unavailable, err, "read /%s", name)
		}
		old = string(data)
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

// hosts keeps the user's lines and replaces ours.
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
