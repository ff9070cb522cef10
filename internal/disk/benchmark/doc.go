// Package benchmark measures what a store lets a disk do, and what the disk makes of it, in one
// run: each figure of the disk stands beside the store's own for the requests that it can't do
// without.
//
// Invariants:
//   - It writes to a disk that it makes, at a path where there is none, and to objects below that
//     path; both are removed at the end, after an error or an interrupt too. It touches nothing
//     else.
//   - What is written is random, so that compression flatters no figure.
package benchmark
