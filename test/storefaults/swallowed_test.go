package storefaults

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
)

// TestSwallowedWritesAreFoundInTime: log objects are acknowledged with an ETag, and aren't there.
// Whoever gives up the last copy of what they have, a close or a checkpoint, looks first, and
// writes them again.
func TestSwallowedWritesAreFoundInTime(t *testing.T) {
	k, ok := s3faulttest.ByName("a PUT that is swallowed")
	if !ok {
		t.Fatal("no such kind")
	}
	server := versitygwtest.Start(t)
	for name, last := range map[string]func(l *life) error{
		"close":      func(l *life) error { return l.d.Close(l.ctx) },
		"checkpoint": func(l *life) error { return l.checkpoint(l.ctx) },
		"settle":     func(l *life) error { return l.d.Settle(l.ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, server, k)
			l.must(l.create(l.ctx))
			l.must(l.attach(l.ctx))
			l.must(l.flush(l.ctx))
			l.stage("flush", logObjects, l.flush)
			if l.took["flush"] == "." {
				t.Fatal("nothing was swallowed")
			}
			l.must(last(l))
			l.must(l.crash())
		})
	}
}
