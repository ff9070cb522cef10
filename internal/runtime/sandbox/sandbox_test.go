package sandbox

import (
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

func TestSmoke(t *testing.T) {
	rel := runtimetest.Release(t)
	d, err := New(Config{Dir: t.TempDir(), CgroupParent: "sluice-smoke/w1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log("probe", time.Since(start))
	for i := range 10 {
		start := time.Now()
		vm, err := d.Start(t.Context(), runtime.Spec{ID: fleet.VMID("abcd123" + string(rune('0'+i))), Release: rel, Boot: []byte(`{"a":1}`), CacheBytes: 1 << 30,
			Limits: fleet.Resources{CPUMillis: 1000, MemoryMiB: 512}})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("start", time.Since(start))
		start = time.Now()
		ans, err := runtimetest.Ask(t.Context(), vm, runtimetest.Request{Op: "look"})
		t.Log("ask", time.Since(start))
		if err != nil {
			t.Error(err)
		}
		if i == 0 {
			b, _ := json.MarshalIndent(ans, "", " ")
			t.Logf("%s", b)
		}
		start = time.Now()
		if err := vm.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		t.Log("kill", time.Since(start), vm.Status())
		start = time.Now()
		if err := vm.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		t.Log("remove", time.Since(start))
	}
	d.Close()
}
