// Package deploy checks the files for tools beside Sluice: alerts for Prometheus, and a dashboard
// for Grafana.
package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAlertsAreRules: Prometheus takes the file, and each alert leads to an entry of the runbook
// that is there.
func TestAlertsAreRules(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules",
		"prometheus/alerts.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	operations := readFile(t, "../docs/operations.md")
	alerts := strings.Split(readFile(t, "prometheus/alerts.yaml"), "- alert: ")[1:]
	if len(alerts) < 10 {
		t.Fatalf("only %d alerts: this test has become blind", len(alerts))
	}
	runbook := regexp.MustCompile(`runbook: docs/operations\.md#(alert-[a-z-]+)\n`)
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		m := runbook.FindStringSubmatch(alert)
		switch {
		case m == nil:
			t.Errorf("%s has no runbook in docs/operations.md", name)
		case !strings.Contains(operations, `| <a id="`+m[1]+`"></a>`+"`"+name+"` |"):
			t.Errorf("docs/operations.md has no row for %s, with the anchor %s", name, m[1])
		}
		for _, part := range []string{"severity: ", "summary: "} {
			if !strings.Contains(alert, part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
	}
}

// TestFlushesSlowFires where one flush in ten takes two seconds, and not where one in twenty does.
func TestFlushesSlowFires(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules",
		"prometheus/flushes_test.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// TestStoreCredentialsOldFires for a worker that says so, and for no other.
func TestStoreCredentialsOldFires(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules",
		"prometheus/credentials_test.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// TestCertificateNotRenewedFires for a worker that says so, and for no other.
func TestCertificateNotRenewedFires(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules",
		"prometheus/certificates_test.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// TestDashboardParses: each panel has an expression, and an id and a title of its own.
func TestDashboardParses(t *testing.T) {
	var board struct {
		UID    string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "grafana/sluice.json")), &board); err != nil {
		t.Fatal(err)
	}
	ids, titles := map[int]bool{}, map[string]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || titles[p.Title] {
			t.Errorf("there are two panels %d, or %q", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Targets[0].Expr == "") {
			t.Errorf("panel %q shows nothing", p.Title)
		}
	}
	if board.UID != "sluice" || len(ids) < 10 {
		t.Errorf("dashboard %q with %d panels", board.UID, len(ids))
	}
}
