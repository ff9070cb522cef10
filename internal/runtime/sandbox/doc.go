// Package sandbox runs VMs as sets of Linux namespaces with a cgroup: the runtime for hosts without
// KVM.
//
// A VM has pid, mount, network, ipc, uts and cgroup namespaces of its own, but no user namespace:
// its root namespace is run by real root, as a kernel would be, and is Sluice's own platform. What
// keeps user code in is the inner container that the platform starts. So sandbox isolates like a
// good container host.
//
// Invariants:
//
//   - Everything that a VM has on the host is named after it (directory, link) or lies below
//     something that is (cgroups, the cache device's backing file). The directory is made first and
//     removed last. So Adopt finds the remains by name, whenever a worker dies.
//   - init runs only after its pid and start time are on record. A setup process whose worker dies
//     before that reads end of file and exits.
//   - A VM is never a part of its worker: own session, own cgroup, no shared descriptor but the
//     console file, no parent-death signal.
//   - Killing never waits for a VM's own storage: every process of it gets SIGKILL at once, the
//     server of its disk too, which aborts what the others wait for.
//
// Limits sit one cgroup above the root of the VM's cgroup namespace, where the VM can't change
// them.
//
// Every program that uses this package calls Child first thing in main.
package sandbox
