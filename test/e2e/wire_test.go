package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestWireKeysAreRenewedUnderTraffic asks a machine on another worker for a page all the time,
// while both workers change the keys of their tunnel: not one request fails.
func TestWireKeysAreRenewedUnderTraffic(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1,
		WorkerArgs: []string{"--tunnel-key-life", "10s"}})
	asks := f.Create("asks", "green", "w1", idle())
	answers := f.Create("answers", "green", "w2", idle(httpd()))
	f.Run(answers.ID, "sh", "-c", "echo here > /srv/index.html")
	// A lost packet is sent again after 200 ms, then 400, …: who waits for 30 s lost the way.
	ask := "for i in 1 2 3 4 5 6 7 8 9 10; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 " +
		answers.PrivateIP + " 8080 | tail -n 1; done"
	seen := map[string]map[string]bool{"w1": {}, "w2": {}}
	for end := time.Now().Add(5 * time.Minute); ; {
		if got := f.Run(asks.ID, "sh", "-c", ask); got != strings.Repeat("here\n", 10) {
			t.Fatalf("%q", got)
		}
		for worker, keys := range seen {
			keys[tunnelKey(t, f, worker)] = true
		}
		if len(seen["w1"]) > 2 && len(seen["w2"]) > 2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("in 5 minutes the workers had %d and %d keys", len(seen["w1"]),
				len(seen["w2"]))
		}
	}
}

// tunnelKey is the key that a worker's tunnel has now.
func tunnelKey(t *testing.T, f *fleettest.Fleet, worker string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.Dir, "workers", worker, "tunnel-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var ring struct{ Current json.RawMessage }
	if err := json.Unmarshal(data, &ring); err != nil {
		t.Fatal(err)
	}
	return string(ring.Current)
}
