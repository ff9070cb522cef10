package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/guestroot"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Probe tries what a VM needs: cgroups with limits, namespaces, a user namespace among them, a
// tmpfs root, a veth pair, and the loop and FUSE devices. It leaves nothing behind.
func (d *Driver) Probe(ctx context.Context) error {
	for _, path := range []string{"/dev/loop-control", "/dev/fuse"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return errs.Wrap(errs.Unsupported, err, "open %s", path).
				WithRemedy("run as root, and modprobe loop fuse")
		}
		_ = f.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return d.vms.Try(ctx, func(ctx context.Context, v *vm) error { return v.probe(ctx) })
}

func (v *vm) probe(ctx context.Context) (err error) {
	if _, err := v.Cgroups.AllV2(); err != nil {
		return err
	}
	if v.Record.FirstID, err = takeIDs(v.Dir()); err != nil {
		return err
	}
	if err := v.makeCgroups(fleet.Resources{CPUMillis: 1000, MemoryMiB: 256}); err != nil {
		return err
	}
	if err := v.makeDirs(); err != nil {
		return err
	}
	p, err := v.spawn()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.send(setup{Probe: true, Dir: v.Dir(), Cgroups: v.Cgroups, Cache: noCache,
		FirstID: v.Record.FirstID}); err != nil {
		return err
	}
	if err = p.started(ctx); err == nil {
		err = p.outcome(ctx)
	}
	err = errors.Join(err, v.Cgroups.KillAndWait(ctx))
	if p.pid != 0 {
		onhost.Reap(p.pid)
	}
	return err
}

// probeInside runs in the new namespaces.
func probeInside(status *os.File) error {
	if err := guestroot.Mount("tmpfs", ".", "tmpfs", 0, ""); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "probe1"}); err != nil {
		return fmt.Errorf("create a veth pair: %w", err)
	}
	if err := onhost.BringUp("probe0", "fe80::1"); err != nil {
		return err
	}
	_, err := status.Write([]byte{execByte})
	return err
}
