//go:build bench

package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	sealedMoves   = 30 // of each machine
	sealedCreates = 30 // of each kind
	sealedBytes   = 32 << 20
)

// TestCostOfEncryptedMachines prints what encryption adds to a move's pause and to a creation: of
// two machines of one fleet one has an encrypted disk, and each is moved by turns; then machines of
// both kinds are created by turns. It fails by no figure: those of a busy host say little, and the
// ratio is in the output.
func TestCostOfEncryptedMachines(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 2})
	var machines []api.Machine
	for _, encrypt := range []bool{true, false} {
		m := createSealed(t, f, fmt.Sprintf("moves-%v", encrypt), encrypt)
		if m.Encrypted != encrypt {
			t.Fatalf("machine %s is encrypted: %v", m.Name, m.Encrypted)
		}
		f.Run(m.ID, "sh", "-c", fmt.Sprintf("echo hello > /srv/index.html && "+
			"head -c %d /dev/urandom > /data/random && sync", sealedBytes))
		machines = append(machines, m)
	}
	pauses, creates := make([][]float64, 2), make([][]float64, 2)
	for n := range 2 * sealedMoves {
		i := (n + n/2) % 2 // each is first as often as the other
		_, pause := move(t, f, machines[i].ID)
		time.Sleep(300 * time.Millisecond) // the pools fill up again
		pauses[i] = append(pauses[i], float64(pause.Microseconds())/1000)
	}
	for n := range 2 * sealedCreates {
		i := (n + n/2) % 2
		began := time.Now()
		m := createSealed(t, f, fmt.Sprintf("new-%d", n), i == 0)
		creates[i] = append(creates[i], float64(time.Since(began).Microseconds())/1000)
		if err := f.DestroyMachine(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	sealedResult("pause by the server's clock, ms", pauses)
	sealedResult("from the request to a healthy machine, ms", creates)
}

// createSealed creates a machine and waits until it is healthy.
func createSealed(t *testing.T, f *fleettest.Fleet, name string, encrypt bool) api.Machine {
	t.Helper()
	m, err := f.CreateMachine(t.Context(), api.CreateMachine{Name: name, App: "test",
		Network: "blue", Encrypt: &encrypt, Config: httpdConfig()})
	if err != nil {
		t.Fatal(err)
	}
	return f.WaitHealthy(m.ID, time.Minute)
}

// sealedResult prints the medians of both kinds, and what one is of the other.
func sealedResult(what string, of [][]float64) {
	median := func(v []float64) float64 {
		v = slices.Sorted(slices.Values(v))
		return v[len(v)/2]
	}
	on, off := median(of[0]), median(of[1])
	fmt.Printf("RESULT %s: encrypted %.1f, in the clear %.1f, n=%d, ratio %.3f\n", what, on, off,
		len(of[0]), on/off)
}
