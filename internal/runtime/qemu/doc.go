// Package qemu runs VMs with a kernel of their own: a QEMU process each, with KVM where it truly
// boots a kernel, else by translation (TCG). It is the runtime for hostile tenants.
//
// A VM has a virtio disk with its order (bootdisk), one with the release (read-only), one for its
// cache, a tap on the worker's side for its link, and a serial console. The kernel, and the
// initramfs whose program (guestboot) makes of it what a sandbox VM's init finds, are in the
// release, below boot.
//
// Invariants:
//
//   - Everything that a VM has on the host is named after it, or ends with its process. Its
//     directory is made first and removed last. So Adopt finds the remains by name, whenever a
//     worker dies.
//   - A VM is on record as whole only once its init runs. One that is not is killed by Adopt: it
//     may still wait for an order that nobody will write.
//   - QEMU is never a part of its worker: own session, own cgroup; what it listens on is its own.
//   - VMs that come from one saved VM share nothing that is secret: it was saved before it had an
//     order. What had run in it of the release, the platform, waited for the boot document, and had
//     drawn no secret (guestapi.WarmFile). The document comes after the clock was set and the
//     kernel's random numbers were seeded anew.
//   - Caches (release images, saved VMs, what a kernel was found to boot with) are named by their
//     content and appear whole or not at all; losing them costs time only.
//
// The memory of a VM is its limit, plus what a kernel takes for itself; it grows and shrinks by
// virtio-mem. CPU is bounded from outside, by the cgroup of the process, once the VM has booted.
package qemu
