// Package sandbox runs VMs as sets of Linux namespaces with a cgroup: the runtime for hosts without
// KVM.
//
// A VM has user, pid, mount, network, ipc, uts and cgroup namespaces of its own. Its root namespace
// is run by a root that is nobody on the host, with ids that no other VM has, and is Sluice's own
// platform. A process beside it, its broker, has the host's privileges, and shows and mounts its
// disk. What keeps user code in is the inner container that the platform starts. So sandbox
// isolates like a good container host.
//
// Invariants:
//
//   - Everything that a VM has on the host is named after it (directory, link) or lies below
//     something that is (cgroups, the cache device's backing file). The directory is made first and
//     removed last. So Adopt finds the remains by name, whenever a worker dies.
//   - init runs only after its pid and start time are on record. A setup process whose worker dies
//     before that reads end of file and exits.
//   - A VM is never a part of its worker: own session, own cgroup, no shared descriptor but the
//     console file, no parent-death signal. Neither is its broker, which ends with it.
//   - Killing never waits for a VM's own storage: every process of it gets SIGKILL at once, the
//     server of its disk too, which aborts what the others wait for.
//
// Limits sit one cgroup above the root of the VM's cgroup namespace, where the VM can't change
// them.
//
// Every program that uses this package calls Child first thing in main.
package sandbox
