// Package image builds template disks: a file tree becomes an ext4 file system becomes a checkpoint
// of a new disk, of which machines' disks are forks. Nothing is mounted, so it needs neither a loop
// device nor a namespace, only root (for owners and device nodes) and e2fsprogs.
//
// Invariants:
//   - An archive can't write outside the tree that it is unpacked to, whatever names and links it
//     holds.
//   - A template is an image only once Build has returned: each build has a disk of its own, and
//     the caller makes it known last. What dies half-way is never seen, and is garbage.
//   - What must differ between two machines (machine-id, host keys, random seed) isn't in an image,
//     nor is what the host that built it uses for itself (resolver, hosts, proxies, caches, logs):
//     not as files, and not in free blocks.
package image
