package onhost

import (
	"testing"
)

// needV2 leaves a test out on a host with cgroup v1; TestOnV2Alone runs it in a VM that has none.
func needV2(t *testing.T) Layout {
	t.Helper()
	l, err := HostLayout()
	if err != nil {
		t.Fatal(err)
	}
	if len(l.V1) > 0 {
		t.Skip("this host has cgroup v1")
	}
	return l
}

func TestV2Layout(t *testing.T) {
	if l := needV2(t); l.Unified != "/sys/fs/cgroup" {
		t.Fatalf("layout %+v", l)
	}
}
