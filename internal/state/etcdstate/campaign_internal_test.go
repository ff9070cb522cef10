package etcdstate

import (
	"log/slog"
	"testing"
	"time"
)

// TestMemberLeadsWithoutATick starts a new member, and an old one, whose ticks are 10 s apart: each leads
// before the first of them. (Elections by silence take one to five ticks.)
func TestMemberLeadsWithoutATick(t *testing.T) {
	const tick = 10 * time.Second
	dir := t.TempDir()
	for _, what := range []string{"new", "old"} {
		cfg, err := embedConfig(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		cfg.TickMs, cfg.ElectionMs = uint(tick.Milliseconds()), uint(5*tick.Milliseconds())
		began := time.Now()
		etcd, err := found(t.Context(), cfg, dir)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		etcd.Close()
		if took >= tick {
			t.Errorf("a %s member led after %s", what, took)
		}
	}
}
