package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Probe tries what a VM needs: cgroups with limits, namespaces, a tmpfs root, a veth pair, and the loop
// and FUSE devices. It leaves nothing behind.
func (d *Driver) Probe(ctx context.Context) (err error) {
	for _, path := range []string{"/dev/loop-control", "/dev/fuse"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return errs.Wrap(errs.Unsupported, err, "open %s", path).WithRemedy("run as root, and modprobe loop fuse")
		}
		_ = f.Close()
	}
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	rec := onhost.Record{ID: fleet.VMID(hex.EncodeToString(id)), CgroupParent: d.cfg.CgroupParent, Boot: d.bootID}
	if _, known := d.vms.Reserve(rec.ID); known {
		return errs.New(errs.Unavailable, "VM id %s is taken", rec.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	v := newVM(d, rec)
	v.end("was only a probe")
	defer func() {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		err = errors.Join(err, v.Remove(undo))
	}()
	if err := os.Mkdir(v.dir(), 0o700); err != nil {
		return errs.Wrap(errs.Unsupported, err, "make a directory of a VM")
	}
	return v.probe(ctx)
}

func (v *vm) probe(ctx context.Context) error {
	if err := v.cgroups.Create(); err != nil {
		return err
	}
	if err := v.cgroups.SetLimits(fleet.Resources{CPUMillis: 1000, MemoryMiB: 256}); err != nil {
		return err
	}
	p, err := v.spawn()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.send(setup{Probe: true, Root: v.dir(), Join: v.cgroups.Joins()}); err != nil {
		return err
	}
	err = p.outcome(ctx)
	err = errors.Join(err, v.cgroups.KillAndWait(ctx))
	onhost.Reap(p.pid)
	return err
}

// probeInside runs in the new namespaces.
func probeInside(root string) error {
	if err := mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
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
	_, err := unix.Write(statusFD, []byte{execByte})
	return err
}
