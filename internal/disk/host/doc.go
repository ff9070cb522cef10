// Package host attaches disks on this host: it makes a process a disk's writer or reader, shows the
// disk as a mount, a block device or an NBD server for as long as somebody wants it, and asks the
// processes that do so.
//
// A Session is a disk, its journal, its attachment record and what shows it. Others on this host
// find the record in the registry (internal/disk/attachment), and speak to the process by
// internal/disk/diskapi.
//
// Invariants: the process that serves a device never waits for that device: what might, such as
// mount(8), is a process of its own, or the caller's. A disk that stops by itself keeps its place
// until somebody ends the session, so that nothing is written to what lies beneath. A session that
// ends in order leaves no mount, device, socket or record behind.
package host
