// Package e2e drains real fleets: real server and worker processes, network namespaces, VMs, FUSE,
// loop devices, ext4 and runc, through the public client only.
package e2e
