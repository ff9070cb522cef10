package inner

import (
	"crypto/sha256"
	"encoding/hex"
)

// machineID returns the content of /etc/machine-id for a machine: 32 hex digits that never change
// and that no other machine shares, forks included.
func machineID(id string) string {
	sum := sha256.Sum256([]byte("sluice machine-id " + id))
	return hex.EncodeToString(sum[:16])
}
