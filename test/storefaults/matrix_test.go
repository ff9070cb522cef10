package storefaults

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
)

// stages are what is done with a disk while the store answers falsely, in this order.
var stages = []string{"create", "attach", "flush", "checkpoint", "fork", "close", "destroy",
	"mark", "sweep"}

// TestEveryAnswerAgainstEveryStage runs a disk's life once for each kind of answer. While each
// stage of it is under way the store answers so, for a while. Nothing acknowledged is lost, by what
// the real store has; nothing living is deleted; an attachment goes on by itself; what is said
// names the cause. It prints how each stage took it.
func TestEveryAnswerAgainstEveryStage(t *testing.T) {
	server := versitygwtest.Start(t)
	var mu sync.Mutex
	rows := map[string]map[string]string{}
	t.Run("kinds", func(t *testing.T) {
		for _, k := range s3faulttest.Kinds() {
			if k.Silent {
				continue // no answer tells them; see TestSilentFaults
			}
			t.Run(k.Name, func(t *testing.T) {
				t.Parallel()
				l := newLife(t, server, k)
				l.all()
				mu.Lock()
				defer mu.Unlock()
				rows[k.Name] = l.took
			})
		}
	})
	t.Log("\n" + table(rows))
}

// table shows how each stage took each kind of answer: waited: it went on by itself when the store
// was well; told: it failed with the cause, and the next try did it; works: the answer is odd, and
// right; a point: it asks for nothing of the kind.
func table(rows map[string]map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s", "")
	for _, s := range stages {
		fmt.Fprintf(&b, "%-11s", s)
	}
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "\n%-28s", name)
		for _, s := range stages {
			fmt.Fprintf(&b, "%-11s", rows[name][s])
		}
	}
	return fmt.Sprintf("%s\n%d kinds of answer", b.String(), len(rows))
}

// TestTheMatrixNoticesALoss seeds the fault that the matrix is there for: writes that count as done
// and are not. A store that believes every answer would see just that.
func TestTheMatrixNoticesALoss(t *testing.T) {
	k, ok := s3faulttest.ByName("a PUT that is swallowed")
	if !ok {
		t.Fatal("no such kind")
	}
	l := newLife(t, versitygwtest.Start(t), k)
	l.must(l.create(l.ctx))
	l.must(l.attach(l.ctx))
	l.stage("flush", logObjects, l.flush)
	if err := l.crash(); err == nil {
		t.Error("what was acknowledged and never stored is not missed")
	} else {
		t.Log(err)
	}
}

// TestSilentFaults: reads, listings and deletions whose answers are as they should be, and untrue.
// Nothing living is lost by that. What destroyed disks leave behind is no loss: a collector finds
// it.
func TestSilentFaults(t *testing.T) {
	server := versitygwtest.Start(t)
	for _, k := range s3faulttest.Kinds() {
		if !k.Silent || k.Ops&s3faulttest.Put != 0 {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, server, k)
			l.all()
			t.Log(l.took)
		})
	}
}
