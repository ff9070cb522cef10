package fleet

import (
	"testing"
	"time"
)

// TestEveryConditionHasARemedy: whoever is alerted by one is told what to do.
func TestEveryConditionHasARemedy(t *testing.T) {
	for _, name := range []ConditionName{ConditionStoreUnreachable, ConditionPoolFailing,
		ConditionRecordsUnwritable, ConditionRecordsUnreadable, ConditionNetworkFailing,
		ConditionTunnelKeyOld, ConditionCertificateNotRenewed, ConditionKeysMissing,
		ConditionStoreCredentialsOld} {
		if c := NewCondition(name, time.Time{}, "x"); c.Remedy == "" {
			t.Errorf("%s has no remedy", name)
		}
	}
	if len(remedies) != 9 {
		t.Errorf("%d conditions have a remedy; name the others here", len(remedies))
	}
}
