package fleet_test

import (
	"encoding/json"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestDiskOfTheStoreIsItsURL: records of older releases, and older releases, have the bare URL.
func TestDiskOfTheStoreIsItsURL(t *testing.T) {
	const old = `{"disk_url":"s3://b/disks/m","x":1}`
	var m struct {
		Disk fleet.Disk `json:"disk_url"`
		X    int        `json:"x"`
	}
	if err := json.Unmarshal([]byte(old), &m); err != nil ||
		m.Disk != fleet.StoreDisk("s3://b/disks/m") {
		t.Fatalf("%+v, %v", m, err)
	}
	if now, err := json.Marshal(m); err != nil || string(now) != old {
		t.Fatalf("%s, %v", now, err)
	}
	var none fleet.Disk
	if err := json.Unmarshal([]byte(`""`), &none); err != nil || none != (fleet.Disk{}) {
		t.Fatalf("%+v, %v", none, err)
	}
	if b, err := json.Marshal(none); err != nil || string(b) != `""` {
		t.Fatalf("%s, %v", b, err)
	}
}

// TestDiskOfALaterRelease is refused, and not taken for one in the store.
func TestDiskOfALaterRelease(t *testing.T) {
	var d fleet.Disk
	if err := json.Unmarshal([]byte(`{"kind":"tape","url":"x"}`), &d); !errs.Is(err,
		errs.Unsupported) {
		t.Fatalf("%+v, %v", d, err)
	}
}
