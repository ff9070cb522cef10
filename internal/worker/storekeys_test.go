package worker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// oldKeys are credentials of the store that can't be renewed.
type oldKeys struct{ expires time.Time }

func (oldKeys) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (k oldKeys) Report() *fleet.StoreKeyReport {
	return &fleet.StoreKeyReport{Source: fleet.StoreKeyOfServer, KeyID: "id", Generation: 7,
		Expires: k.expires}
}
func (oldKeys) Trouble() (time.Time, error) {
	return time.Now(), errs.New(errs.Unavailable, "they can't be renewed")
}

// TestStoreCredentialsAreSeen: which a worker uses, and that they won't do for long, is in its
// report and its metrics.
func TestStoreCredentialsAreSeen(t *testing.T) {
	r := newRig(t, 0, func(c *worker.Config) { c.ScrapeToken = scrapeToken })
	keys := oldKeys{time.Now().Add(time.Hour)}
	r.keys = keys
	r.start()
	r.eventually("it reports", func() bool { return len(r.feed.all()) > 0 })
	report := r.feed.last()
	if k := report.StoreKey; k == nil || k.KeyID != "id" || k.Generation != 7 {
		t.Errorf("%+v", k)
	}
	if c := report.Conditions; len(c) != 1 || c[0].Name != fleet.ConditionStoreCredentialsOld ||
		!strings.Contains(c[0].Message, "can't be renewed") || c[0].Remedy == "" {
		t.Errorf("%+v", c)
	}
	_, body := r.call("GET", "/metrics", caller{token: scrapeToken})
	for _, line := range []string{
		`sluice_worker_condition{condition="store-credentials-old"} 1`,
		fmt.Sprintf("sluice_worker_store_credentials_expiry_timestamp_seconds %v",
			float64(keys.expires.Unix())),
	} {
		if !strings.Contains(body, line) {
			t.Errorf("no line %s in\n%s", line, body)
		}
	}
}
