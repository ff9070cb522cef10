// Package frontend measures the disk below a file system: a plain file under a loop device, our
// front end over a device that does nothing but copy, and our front end over the engine, side by
// side in one run, by fio with direct I/O. It prints ratios and fails on none. Run it with `make
// bench`.
package frontend
