package e2e

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestAFleetBehindAFalseStore has the way to a fleet's store answered by others for a while: by a
// portal, by an ingress without a store behind it, by a redirect, and by S3 itself with a bucket
// that is missing. The machine waits and is said to, with what answered; then it goes on by itself,
// the same VM, with all that it acknowledged.
func TestAFleetBehindAFalseStore(t *testing.T) {
	server := versitygwtest.Start(t)
	server.Setenv(t)
	proxy := s3faulttest.Start(t, strings.TrimPrefix(server.Endpoint, "http://"))
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 0,
		StoreAt: func(at netip.Addr) string {
			reached := s3proxy.StartAt(t, proxy.Endpoint, at)
			return "s3://" + server.Bucket + "/pool?endpoint=" + url.QueryEscape(reached.URL) +
				"&path_style=true&region=us-east-1"
		}})
	cfg := fleettest.LedgerConfig()
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "1h") // it appends only when asked
	m := f.Create("m", "green", "w1", cfg)
	acked := uint64(0)
	for name, says := range map[string]string{
		"200 HTML": "Sign in", "404 of an ingress": "default backend", "302 to a page": "302 Found",
		"404 NoSuchBucket": "bucket does not exist",
	} {
		k, ok := s3faulttest.ByName(name)
		if !ok {
			t.Fatalf("no kind %q", name)
		}
		proxy.Break(k, nil)
		if n, err := askLedger(t, f, m.ID, 3*time.Second); err == nil {
			t.Errorf("%s: record %d was acknowledged", name, n)
		}
		f.Eventually(time.Minute, func() error {
			stalled, err := f.Machine(t.Context(), m.ID)
			if s := stalled.DiskStall; err == nil &&
				(s == nil || !strings.Contains(s.Reason, says) || s.Remedy == "") {
				err = fmt.Errorf("%s: the stall doesn't name %q: %+v", name, says, s)
			}
			return err
		})
		proxy.Heal()
		f.Eventually(2*time.Minute, func() error {
			n, err := askLedger(t, f, m.ID, 10*time.Second)
			if err == nil && n <= acked {
				err = fmt.Errorf("%s: record %d was acknowledged before, now %d", name, acked, n)
			}
			acked = n
			return err
		})
	}
	if now := f.WaitHealthy(m.ID, 2*time.Minute); now.Generation != m.Generation {
		t.Errorf("the machine was started anew: generation %d, before %d",
			now.Generation, m.Generation)
	}
	if n, err := f.Ledger(t.Context(), m.ID, "verify"); err != nil || n < acked {
		t.Errorf("record %d was acknowledged, the ledger ends at %d: %v", acked, n, err)
	}
}
