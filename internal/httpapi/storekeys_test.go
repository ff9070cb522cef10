package httpapi

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestWhenAKeyCanBeDeleted: once nobody who isn't shut out may need it, and not before.
func TestWhenAKeyCanBeDeleted(t *testing.T) {
	now := time.Now()
	server := fleet.StoreKeyView{Needed: true, Source: "file", Generation: 7, KeyID: "new"}
	worker := func(k *fleet.StoreKeyReport) fleet.WorkerView {
		return fleet.WorkerView{Worker: fleet.Worker{ID: "w"}, Liveness: "alive",
			Report: &fleet.WorkerReport{StoreKey: k}}
	}
	ofServer := func(generation int64, expires time.Time) fleet.WorkerView {
		return worker(&fleet.StoreKeyReport{Source: fleet.StoreKeyOfServer, KeyID: "id",
			Generation: generation, Expires: expires})
	}
	revoked := ofServer(3, time.Time{})
	revoked.RevokedAt = now
	for what, c := range map[string]struct {
		worker  fleet.WorkerView
		state   string
		settled bool
	}{
		"it has the newest":   {ofServer(7, time.Time{}), api.StoreCredentialsCurrent, true},
		"it has those before": {ofServer(3, time.Time{}), api.StoreCredentialsOlder, false},
		"a session before": {ofServer(3, now.Add(time.Hour)),
			api.StoreCredentialsOlder, false},
		"a session that has ended": {ofServer(3, now.Add(-time.Hour)),
			api.StoreCredentialsExpired, true},
		"it has none yet": {ofServer(0, time.Time{}), api.StoreCredentialsOlder, false},
		"its host's own": {worker(&fleet.StoreKeyReport{Source: "own"}),
			api.StoreCredentialsOwn, true},
		"an earlier release": {worker(nil), api.StoreCredentialsUnknown, false},
		"it has said nothing": {fleet.WorkerView{Liveness: "down"},
			api.StoreCredentialsUnknown, false},
		"shut out with those before": {revoked, api.StoreCredentialsRevoked, true},
	} {
		got := storeKeysToAPI(server, []fleet.WorkerView{ofServer(7, time.Time{}), c.worker})
		if w := got.Workers[1]; w.State != c.state || got.Settled != c.settled {
			t.Errorf("%s: %+v, settled %v", what, w, got.Settled)
		}
	}
	troubled := server
	troubled.Trouble = "the newest is refused"
	if got := storeKeysToAPI(troubled, nil); got.Settled {
		t.Error("settled, although the newest key isn't used")
	}
	got := storeKeysToAPI(fleet.StoreKeyView{}, []fleet.WorkerView{worker(nil)})
	if got.Settled || got.Needed || got.Workers[0].State != api.StoreCredentialsNone {
		t.Errorf("a store that takes none: %+v", got)
	}
}
