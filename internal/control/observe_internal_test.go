package control

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestEveryChangeOfAReportIsAnnounced: whoever watches a worker is woken by whatever they would see
// change, and not by what merely counts up.
func TestEveryChangeOfAReportIsAnnounced(t *testing.T) {
	at := time.Unix(1000, 0)
	condition := func(name fleet.ConditionName, message string) []fleet.Condition {
		return []fleet.Condition{fleet.NewCondition(name, at, message)}
	}
	store := condition(fleet.ConditionStoreUnreachable, "refused")
	kvm, tcg := &fleet.Acceleration{Kind: "kvm"},
		&fleet.Acceleration{Kind: "tcg", Reason: "no /dev/kvm"}
	healthy := fleet.VMReport{Machine: "m", Generation: 1, Phase: fleet.PhaseHealthy}
	busier := healthy
	busier.Disk.Requests, busier.Progress = 100, 7
	for _, c := range []struct {
		name     string
		old, now fleet.WorkerReport
		want     bool
	}{
		{"nothing", fleet.WorkerReport{Conditions: store}, fleet.WorkerReport{Conditions: store},
			false},
		{"the same in another time zone", fleet.WorkerReport{Conditions: store},
			fleet.WorkerReport{Conditions: []fleet.Condition{
				fleet.NewCondition(fleet.ConditionStoreUnreachable, at.In(time.FixedZone("", 3600)),
					"refused")}}, false},
		{"a condition", fleet.WorkerReport{}, fleet.WorkerReport{Conditions: store}, true},
		{"its end", fleet.WorkerReport{Conditions: store}, fleet.WorkerReport{}, true},
		{"another one instead", fleet.WorkerReport{Conditions: store},
			fleet.WorkerReport{Conditions: condition(fleet.ConditionPoolFailing, "refused")}, true},
		{"its message", fleet.WorkerReport{Conditions: store},
			fleet.WorkerReport{Conditions: condition(fleet.ConditionStoreUnreachable, "timed out")},
			true},
		{"what runs its VMs", fleet.WorkerReport{Acceleration: kvm},
			fleet.WorkerReport{Acceleration: tcg}, true},
		{"that is as it was", fleet.WorkerReport{Acceleration: kvm},
			fleet.WorkerReport{Acceleration: &fleet.Acceleration{Kind: "kvm"}}, false},
		{"how much a disk was used", fleet.WorkerReport{VMs: []fleet.VMReport{healthy}},
			fleet.WorkerReport{VMs: []fleet.VMReport{busier}}, false},
	} {
		o := newObserver(fleet.DefaultPolicy(), at)
		c.old.Worker, c.old.Boot, c.old.Sequence = "w", "b", 1
		c.now.Worker, c.now.Boot, c.now.Sequence = "w", "b", 2
		o.take(c.old, at)
		if _, changed := o.take(c.now, at); changed != c.want {
			t.Errorf("%s: announced %v, want %v", c.name, changed, c.want)
		}
	}
}
