package sandbox

import (
	"github.com/vishvananda/netlink"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// createLink joins this thread's network namespace to that of pid by a pair of links, and brings up
// this end.
func createLink(name string, pid int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, onhost.HardwareAddr(onhost.HostLinkMAC)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: guestapi.LinkName,
		PeerHardwareAddr: onhost.HardwareAddr(onhost.GuestLinkMAC),
		PeerNamespace:    netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return errs.Wrap(errs.Internal, err, "create link %s", name)
	}
	if err := onhost.BringUp(name, guestapi.HostLinkIP); err != nil {
		return err
	}
	return onhost.PinPeer(name, guestapi.GuestLinkIP, onhost.GuestLinkMAC)
}
