//go:build qemu

package e2e

import "testing"

// TestQemuUserCodeStaysInItsMachine is the same where every VM has a kernel of its own: the link,
// the gateway and the rules on the host are the worker's there too.
func TestQemuUserCodeStaysInItsMachine(t *testing.T) {
	userCodeStaysInItsMachine(t, "qemu", qemuPatience)
}
