// Package torture has machines use up their memory, disks and processes, all at once, over a store
// that is slow and stalls: nothing may hang, and nothing that was acknowledged may be lost.
package torture
