// Package platform is the code that runs inside every VM, in its root namespace. Its parts:
//
//   - vminit: PID 1 of the VM. Starts the other two and reaps; no protocol of its own.
//   - blockd: the disk, as a process of its own, behind blockapi.
//   - machine: platformd, the one part with an API: it binds a VM to a machine and releases it.
//   - inner, innerapi, innerinit: the container in which user code runs, and its PID 1.
//   - service, servicelog, session: what people see of a machine: services, their logs, exec.
//
// Invariants. User code reaches none of this: the container sees no socket, mount, address or
// descriptor of the root namespace. Whatever comes out of the container (an exit code, a process
// id, a byte stream) is the user's data, never an instruction. The platform's knowledge of a
// machine is on a tmpfs of the VM, so each part can be restarted. The exception is blockd, which
// has the disk's newest state: without it the VM ends.
package platform
