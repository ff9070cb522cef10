package api

import "time"

// SetSecret sets a secret. No answer ever has its value.
type SetSecret struct {
	Value string `json:"value"` // at most 32 KiB of UTF-8, without zero bytes
}

// Secret is a secret of an app in a network, as it is shown.
type Secret struct {
	Network string `json:"network"`
	App     string `json:"app"`
	Name    string `json:"name"` // of the environment variable
	// Digest tells values apart. It is keyed, so that nobody can try values against it, and changes
	// with the fleet's key.
	Digest string    `json:"digest"`
	SetAt  time.Time `json:"set_at"`
}

// Network is a private network, and how the disks of its machines are encrypted.
type Network struct {
	Name string `json:"name"`
	// Key is the number of its newest key; 0: no disk of its machines is encrypted.
	Key       uint32 `json:"key"`
	Encrypted int    `json:"encrypted"` // machines with an encrypted disk
	// Waiting are the machines whose disks are not under the newest key yet.
	Waiting []Blocker `json:"waiting,omitempty"`
}

// DiskKey opens the disk of one machine.
type DiskKey struct {
	Machine string `json:"machine"` // its id
	DiskURL string `json:"disk_url"`
	Key     string `json:"key"` // 32 bytes in hex: what a key file may hold
}
