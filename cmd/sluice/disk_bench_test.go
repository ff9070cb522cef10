package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestDiskBench measures a store, and leaves no disk where it did so.
func TestDiskBench(t *testing.T) {
	h := newDiskHost(t)
	url := h.url("bench")
	args := []string{"bench", url, "--size", "16MiB", "--duration", "50ms", "--cache", "16MiB"}
	var b diskBenchmark
	if err := json.Unmarshal([]byte(h.must("bench", url, "--size", "16MiB", "--duration", "50ms",
		"--json")), &b); err != nil {
		t.Fatal(err)
	}
	if b.URL != url || b.SizeBytes != 16<<20 || len(b.Results) == 0 {
		t.Fatalf("%+v", b)
	}
	out := h.must(args...)
	for _, r := range b.Results {
		if !strings.Contains(out, r.Name) || r.Ops == 0 {
			t.Errorf("%s: %d operations; printed:\n%s", r.Name, r.Ops, out)
		}
	}
	h.refused(exitNotFound, "no disk", "info", url)
	h.refused(exitUsage, "at least 16", "bench", url, "--size", "1MiB")
	h.must("create", url, "--size", "64MiB")
	h.refused(exitConflict, "there is a disk", args...)
}
