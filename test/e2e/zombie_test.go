package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestZombieIsFenced cuts a worker off from everything but the store. Its machine is started
// elsewhere while it goes on writing; from then on the storage refuses its writes, and everything
// that it had acknowledged before is on the new side (invariants 1, 2, 3, 4).
func TestZombieIsFenced(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1,
		Args: []string{"--worker-suspect", "1500ms", "--worker-down", "3s"}})
	cfg := fleettest.LedgerConfig()
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "1h") // it appends only when asked
	m := f.Create("ledger", "green", "w1", cfg)
	zombie := func(what string) (uint64, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		body, err := f.HostRequest(ctx, "w1", "GET", "/machines/"+m.ID+"/ports/8080/"+what)
		if err != nil {
			return 0, err
		}
		return strconv.ParseUint(strings.TrimSpace(string(body)), 10, 64)
	}
	if err := f.Cut("w1"); err != nil {
		t.Fatal(err)
	}
	var acked, afterCut uint64
	var refused error
	deadline := time.Now().Add(2 * time.Minute)
	for refused == nil && time.Now().Before(deadline) {
		n, err := zombie("append")
		if err != nil {
			refused = err
			break
		}
		acked = n
		afterCut++
		time.Sleep(2 * time.Millisecond)
	}
	if refused == nil {
		t.Fatalf("the zombie still writes after a minute (record %d)", acked)
	}
	if afterCut < 50 {
		t.Fatalf("the zombie acknowledged only %d records after the cut: this run proves nothing",
			afterCut)
	}
	now := f.WaitHealthy(m.ID, 2*time.Minute)
	if now.Worker != "w2" {
		t.Fatalf("the machine is on %s", now.Worker)
	}
	first, err := f.Ledger(t.Context(), m.ID, "verify")
	if err != nil {
		t.Fatalf("the new side's data: %v", err)
	}
	// One append may have been stored without its acknowledgement.
	if first < acked || first > acked+1 {
		t.Fatalf("the zombie acknowledged %d records, the new side has %d", acked, first)
	}
	for range 20 {
		if n, err := zombie("append"); err == nil {
			t.Fatalf("the zombie acknowledged record %d after the machine was started elsewhere", n)
		}
		if _, err := f.Ledger(t.Context(), m.ID, "append"); err != nil {
			t.Fatalf("append on the new side: %v", err)
		}
	}
	if n, err := f.Ledger(t.Context(), m.ID, "verify"); err != nil || n != first+20 {
		t.Fatalf("the new side has %d records, want %d: %v", n, first+20, err)
	}
	t.Logf("zombie: %d records acknowledged after the cut, then refused with: %v",
		afterCut, refused)

	if err := f.Heal("w1"); err != nil {
		t.Fatal(err)
	}
	f.Eventually(30*time.Second, func() error {
		vms, err := f.VMs("w1")
		if err != nil {
			return err
		}
		for _, vm := range vms {
			if vm.Machine == m.ID {
				return fmt.Errorf("w1 still has VM %s of the machine, %s", vm.ID, vm.Phase)
			}
		}
		return nil
	})
}
