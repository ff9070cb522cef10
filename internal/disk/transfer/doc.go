// Package transfer copies whole disks from and to files: raw ones by itself, and every other format
// that qemu-img knows through an NBD server on a socket that only this user can reach.
//
// Invariants:
//   - Sparse stays sparse, both ways: holes and blocks of zeros are neither written nor stored.
//   - Import returns after the device has flushed, Export after the file has been fsynced.
package transfer
