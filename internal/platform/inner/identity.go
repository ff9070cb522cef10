package inner

import (
	"crypto/sha256"
	"encoding/hex"
)

// machineID returns the content of /etc/machine-id for a machine: 32 hex digits, stable over its
// life, and different from those of all others, forks included.
func machineID(id string) string {
	sum := sha256.Sum256([]byte("sluice machine-id " + id))
	return hex.EncodeToString(sum[:16])
}
