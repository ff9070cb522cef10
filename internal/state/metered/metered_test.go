package metered_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/state/metered"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestCommitsAreMeasured(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := metered.New(memstate.New(memstate.Config{}), reg)
	metered.RegisterSize(reg, func() metered.Size {
		return metered.Size{Bytes: 3, InUse: 2,
			Quota: 4}
	})
	create := state.Txn{If: []state.Cond{{Key: "a"}},
		Then: []state.Op{{Key: "a", Value: []byte("x")}}}
	if _, err := s.Commit(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), create); !errs.Is(err, errs.Conflict) {
		t.Fatalf("created twice: %v", err)
	}
	want := `# HELP sluice_state_commits_total Commits to the state, by result: ok, conflict (a lost race), or what failed.
# TYPE sluice_state_commits_total counter
sluice_state_commits_total{result="conflict"} 1
sluice_state_commits_total{result="ok"} 1
# HELP sluice_state_in_use_bytes Part of the state's database file that isn't free for reuse.
# TYPE sluice_state_in_use_bytes gauge
sluice_state_in_use_bytes 2
# HELP sluice_state_quota_bytes Size of the state's database file beyond which nothing is written.
# TYPE sluice_state_quota_bytes gauge
sluice_state_quota_bytes 4
# HELP sluice_state_size_bytes Size of the state's database file.
# TYPE sluice_state_size_bytes gauge
sluice_state_size_bytes 3
`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want), "sluice_state_commits_total",
		"sluice_state_in_use_bytes", "sluice_state_quota_bytes", "sluice_state_size_bytes")
	if err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(reg, "sluice_state_commit_duration_seconds"); n != 1 {
		t.Errorf("%d histograms of commits", n)
	}
}
