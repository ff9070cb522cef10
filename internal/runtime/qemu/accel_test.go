package qemu

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAccelerationIsRemembered: by later drivers, until the host is booted anew, and not for long
// where it was in doubt.
func TestAccelerationIsRemembered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	release, cache := t.TempDir(), t.TempDir()
	for _, file := range []string{kernelPath, initrdPath} {
		path := filepath.Join(release, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("no kernel"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g, err := kernelOf(release)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *Driver {
		d, err := New(Config{Dir: t.TempDir(), CacheDir: cache, CgroupParent: "sluice-test/accel",
			Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	const told = "as it was told"
	hostUp := open().vms.BootID()
	for name, c := range map[string]struct {
		was  accel
		kept bool
	}{
		"sure":         {accel{Reason: told, Boot: hostUp, Sure: true}, true},
		"another boot": {accel{Reason: told, Boot: "another", Sure: true}, false},
		"in doubt":     {accel{Reason: told, Boot: hostUp, Tried: time.Now()}, true},
		"doubted longer": {accel{Reason: told, Boot: hostUp,
			Tried: time.Now().Add(-2 * doubtAfter)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := json.Marshal(c.was)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(cache, "accel-"+g.KernelID+".json"), b,
				0o600); err != nil {
				t.Fatal(err)
			}
			got, err := open().Acceleration(t.Context(), release)
			if err != nil {
				t.Fatal(err)
			}
			// What was found anew: these two files boot by nothing.
			if kept := got.Reason == told; kept != c.kept || got.Kind != "tcg" || got.Reason == "" {
				t.Errorf("%+v", got)
			}
			if again, err := open().Acceleration(t.Context(), release); err != nil || again != got {
				t.Errorf("a later driver says %+v, %v after %+v", again, err, got)
			}
		})
	}
}
