// Package platform is the code that runs inside every VM, in its root namespace. Its parts:
//
//   - vminit: PID 1 of the VM. Starts the other two and reaps; no protocol of its own.
//   - blockd: the disk, as a process of its own, behind blockapi.
//   - machine: platformd, the one part with an API: it binds a VM to a machine and releases it.
//   - inner, innerapi, innerinit: the container in which user code runs, and its PID 1.
//   - service, servicelog, session: what people see of a machine: services, their logs, exec.
//
// Invariants. User code reaches none of this: no socket, mount, address or descriptor of the root
// namespace is visible inside the container, and whatever comes out of the container (an exit code,
// a process id, a byte stream) is data of the user's, never an instruction. What the platform knows
// about a machine is on a tmpfs of the VM, so each part can die and come back (but blockd: the
// disk's newest state is in it, and without it the VM ends).
package platform
