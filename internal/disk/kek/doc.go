// Package kek holds key-encryption keys: what wraps the keys of encrypted disks, from a key file,
// or from a command that asks whoever has the key (a KMS, age, a TPM).
//
// Invariants:
//   - No secret is in an error, a log line, an argument or the environment of a process.
//   - What was wrapped for one disk is not unwrapped for another.
package kek
