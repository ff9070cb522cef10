package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

func TestTopLooksOnceWithoutATerminal(t *testing.T) {
	c := story(t)
	golden(t, "top.txt", c.must("top", "--every", "100ms"))
	var v fleetView
	if err := json.Unmarshal([]byte(c.must("top", "--every", "100ms", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Workers) < 2 || len(v.Machines) < 2 || v.Server.FleetID == "" {
		t.Errorf("%+v", v)
	}
	if _, stderr, code := c.run("top", "--every", "1ms"); code != 2 || !strings.Contains(stderr,
		"--every") {
		t.Errorf("an interval that is too short: %d %s", code, stderr)
	}
}

// TestTopTellsRatesAndTroubleFirst: rates are of one incarnation, and the machine that is stalled
// isn't below the fold.
func TestTopTellsRatesAndTroubleFirst(t *testing.T) {
	c := newCLI(t)
	for _, name := range []string{"a", "b", "c"} {
		c.must("machine", "create", name, "--app", "shop", "--network", "prod", "--image", "base")
	}
	report := func(name, instance string, requests int64, stall *fleet.DiskStall) {
		c.fleet.Update(func(tx *httpapitest.Tx) {
			for _, m := range tx.Machines {
				if string(m.Machine.Name) != name {
					continue
				}
				m.Machine.Placement = &fleet.Placement{Worker: "w1",
					Instance: fleet.InstanceID(instance)}
				m.Report = &fleet.VMReport{Phase: fleet.PhaseHealthy, Stall: stall,
					Disk: fleet.DiskReport{Requests: requests, BytesWritten: requests * 1000}}
			}
		})
	}
	report("a", "i1", 100, nil)
	report("b", "i1", 100, nil)
	report("c", "i1", 100, nil)
	fleetClient, err := client.New(c.env["SLUICE_URL"], c.env["SLUICE_TOKEN"])
	if err != nil {
		t.Fatal(err)
	}
	_, before, err := readFleet(t.Context(), fleetClient, fleetReading{})
	if err != nil {
		t.Fatal(err)
	}
	before.at = before.at.Add(-time.Minute) // as if it were long ago
	report("a", "i2", 1_000_000, nil)       // it was started anew
	report("b", "i1", 6100, nil)
	report("c", "i1", 100, &fleet.DiskStall{Since: time.Now()})
	v, _, err := readFleet(t.Context(), fleetClient, before)
	if err != nil {
		t.Fatal(err)
	}
	if v.Machines[0].Name != "shop/c" || v.Machines[0].Stall == nil ||
		v.Machines[1].Name != "shop/b" {
		t.Errorf("the order is %+v", v.Machines)
	}
	if b := v.Machines[1]; b.StoreRequests < 50 || b.StoreRequests > 100 ||
		b.WrittenBytes < 50_000 ||
		b.WrittenBytes > 100_000 {
		t.Errorf("6000 requests in a minute are %+v", b)
	}
	if a := v.Machines[2]; a.StoreRequests != 0 {
		t.Errorf("the counts of another incarnation are compared: %+v", a)
	}
	var out strings.Builder
	if err := printFleet(&out, &v, 1); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "shop/c") ||
		strings.Contains(text, "shop/b") ||
		!strings.Contains(text, "and 2 more") {
		t.Errorf("where one machine fits:\n%s", text)
	}
}
