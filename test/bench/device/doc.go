// Package device measures attached disks from outside: a process of its own serves the disk from a
// real S3 server, the kernel has it as a block device, and a proxy before the server counts what is
// asked of it and makes it as far away as wanted. Peers are measured in the same way and the same
// run. Nothing here fails on a time.
package device
