// Package frontend shows a disk.Device to the kernel as a block device: by a FUSE file with a loop
// device over it, which works on every kernel and needs neither udev nor a fusermount binary, or by
// the kernel's NBD client.
//
// Invariants, of FUSE; see NBDDevice for what NBD keeps of them:
//   - The FUSE file system is mounted in no namespace. Only the loop device holds its one file
//     open, so no other mount namespace can pin it, and it ends by itself when the loop device lets
//     go.
//   - The loop device is held open by this process and marked to clear itself. When the process
//     dies in whatever way, what is left is at most an ext4 mount that answers with EIO, which
//     Sweep removes.
//   - A write that the device refused is answered with EIO. Nothing is acknowledged that the device
//     has not acknowledged, and a flush is passed on as a flush.
//
// A hazard that callers must know: a process that waits in the kernel for its own block device
// (mount, umount, sync, any file access below the mount) can't be killed while it serves that
// device, because the thread that waits keeps open what the kernel would have to close. So use the
// block device, and call MountExt4 and Unmount, in another process than the one that serves.
// fuseabort.Process frees one that is stuck.
package frontend
