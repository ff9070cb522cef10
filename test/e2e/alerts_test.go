package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestAlertsOnARealFleet drills the alerts: what each is for is made to happen on a real fleet,
// and the rules are evaluated on what its processes then expose. Each was silent before. Beside
// that it holds that promtool likes the metrics, and that whatever alerts and dashboard ask for
// is there.
func TestAlertsOnARealFleet(t *testing.T) {
	d := newDrill(t)
	f := d.f
	cfg := fleettest.LedgerConfig()
	cfg.CPUs = 1
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "1h") // it appends only when asked
	a := f.Create("a", "green", "w1", cfg)
	large := cfg
	large.CPUs = 2
	f.Create("b", "green", "w2", large)
	d.calm = d.awaitCalm("w1", "w2")
	d.await("all is well", nil, []string{"w1", "w2"})
	d.slowStore(a.ID)

	drain, err := f.StartDrain(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	d.await("a drain without a target",
		[]string{`server/sluice_blockers{code="no-capacity",of="drain"}`}, []string{"w1", "w2"},
		"SluiceDrainBlocked")
	if _, err := f.CancelDrain(t.Context(), drain.ID); err != nil {
		t.Fatal(err)
	}

	away, ok := s3faulttest.ByName("404 of an ingress")
	if !ok {
		t.Fatal("no such fault")
	}
	d.proxy.Break(away, nil)
	if n, err := askLedger(t, f, a.ID, 3*time.Second); err == nil {
		t.Errorf("record %d was acknowledged without a store", n)
	}
	d.await("a store that is away", []string{"w1/sluice_disks_stalled",
		`w1/sluice_worker_condition{condition="store-unreachable"}`},
		[]string{"w1", "w2"}, "SluiceStoreStalled", "SluiceWorkerNotReady")
	d.proxy.Heal()
	f.WaitHealthy(a.ID, 2*time.Minute)
	d.await("all is well again", []string{"w1/sluice_ready"}, []string{"w1", "w2"})

	if err := f.Kill(t.Context(), "w2"); err != nil {
		t.Fatal(err)
	}
	d.await("a worker that is gone",
		[]string{`server/sluice_workers{liveness="down",state="down"}`},
		[]string{"w1"}, "SluiceWorkerDown")

	d.breakBoots()
	d.killEmptyVMs("w1")
	// One that waits for a VM has boots tried at once, also on a busy host; there the worker may
	// have been silent for too long to be given any just now.
	f.Eventually(2*time.Minute, func() error {
		_, err := f.CreateMachine(t.Context(),
			api.CreateMachine{Name: "c", App: "test", Network: "green",
				Worker: "w1", Config: cfg})
		return err
	})
	d.await("VMs that don't boot", []string{"w1/sluice_pool_boot_failures_total"}, []string{"w1"},
		"SluicePoolEmpty", "SluiceStartsFail", "SluiceWorkerDown")
	d.checkNames()
}

// drilled are the alerts that the drill can tell about. Others depend on what else this host does.
var drilled = []string{"SluiceServerDown", "SluiceServerNotReady", "SluiceBrakeOn",
	"SluiceStateAlmostFull", "SluiceWorkerDown", "SluiceWorkerNotReady", "SluiceStoreStalled",
	"SluicePoolEmpty", "SluiceStartsFail", "SluiceDrainBlocked", "SluiceMoveSlow",
	"SluiceFiguresLeftOut"}

// drill is a fleet whose store and whose boots can be broken, and what was scraped of it.
type drill struct {
	t       *testing.T
	f       *fleettest.Fleet
	proxy   *s3faulttest.Proxy
	far     *s3proxy.Proxy // on the way to it
	release string
	token   string
	calm    scraped
	names   map[string]bool // of all samples that were ever scraped
	liked   map[string]bool // processes whose metrics promtool has looked at
}

// scraped is the value of each of our samples, by the process and the sample's name with its
// labels.
type scraped map[string]string

func newDrill(t *testing.T) *drill {
	server := versitygwtest.Start(t)
	server.Setenv(t)
	d := &drill{t: t, names: map[string]bool{}, liked: map[string]bool{},
		proxy: s3faulttest.Start(t,
			strings.TrimPrefix(server.Endpoint, "http://"))}
	d.release = filepath.Join(t.TempDir(), strings.Repeat("5ab0", 16))
	if err := os.CopyFS(d.release, os.DirFS(fleettest.Release(t))); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "metrics.token")
	d.token = "a-token-for-metrics-alone"
	if err := os.WriteFile(token, []byte(d.token), 0o600); err != nil {
		t.Fatal(err)
	}
	d.f = fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, CPUs: 2, Release: d.release,
		Args: []string{"--metrics-token-file", token, "--worker-suspect", "1500ms", "--worker-down",
			"3s"},
		StoreAt: func(at netip.Addr) string {
			d.far = s3proxy.StartAt(t, d.proxy.Endpoint, at)
			return "s3://" + server.Bucket + "/pool?path_style=true&region=us-east-1&endpoint=" +
				url.QueryEscape(d.far.URL)
		},
		// Nobody listens there: the metrics of traces are looked for, too, and a collector that is
		// away is no reason for any alert.
		OTLPAt: func(at netip.Addr) string {
			return "http://" + netip.AddrPortFrom(at, 9).String()
		}})
	return d
}

// slowStore makes the store take its time for what a machine on w1 flushes: both the worker's and
// the machine's own figures say that flushes waited for the store that long.
func (d *drill) slowStore(machine string) {
	d.t.Helper()
	const slow = 700 * time.Millisecond // it hasn't stalled
	before := d.scrape("w1")
	d.far.SetLatencyOf("/log/", slow)
	for range 3 {
		if _, err := askLedger(d.t, d.f, machine, time.Minute); err != nil {
			d.t.Fatal(err)
		}
	}
	d.far.SetLatencyOf("/log/", 0)
	after := d.scrape("w1")
	for _, sample := range []string{
		`w1/sluice_worker_disk_flush_wait_seconds_sum{wait="store"}`,
		`w1/sluice_disk_flush_wait_seconds_total{machine="` + machine + `",wait="store"}`,
	} {
		if n := number(after[sample]) - number(before[sample]); n < slow.Seconds() {
			d.t.Errorf("three appends to a slow store: %s grew by %v", sample, n)
		}
	}
	for key, value := range after {
		if strings.Contains(key, "flush_wait_seconds_sum") {
			d.t.Logf("%s: %.3f s more", key, number(value)-number(before[key]))
		}
	}
}

// number is a sample's value; 0: it isn't there.
func number(text string) float64 {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return n
}

// breakBoots takes away what new VMs are made of.
func (d *drill) breakBoots() {
	if err := os.Rename(d.release, d.release+".away"); err != nil {
		d.t.Fatal(err)
	}
}

// killEmptyVMs ends the VMs of a worker's pool.
func (d *drill) killEmptyVMs(worker string) {
	d.t.Helper()
	body, err := d.f.HostRequest(d.t.Context(), worker, http.MethodGet, "/debug/vms")
	if err != nil {
		d.t.Fatal(err)
	}
	var list struct {
		Items []struct {
			VM   string
			Pool bool
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		d.t.Fatal(err)
	}
	killed := 0
	for _, vm := range list.Items {
		if vm.Pool {
			killed += d.f.KillInVM(worker, "init", vm.VM)
		}
	}
	if killed == 0 {
		d.t.Fatalf("worker %s has no empty VM: %s", worker, body)
	}
}

// scrape reads the metrics of the server and of workers.
func (d *drill) scrape(workers ...string) scraped {
	d.t.Helper()
	all := scraped{}
	d.take(all, "server", d.serverMetrics())
	for _, w := range workers {
		body, err := d.f.HostRequest(d.t.Context(), w, http.MethodGet, "/metrics")
		if err != nil {
			d.t.Fatal(err)
		}
		d.take(all, w, string(body))
	}
	return all
}

// serverMetrics scrapes the server as Prometheus would, with the token that is for that alone.
func (d *drill) serverMetrics() string {
	d.t.Helper()
	s, err := d.f.State()
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet,
		s.ServerURL+"/metrics", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	browser := d.f.Browser(d.token)
	defer browser.CloseIdleConnections()
	resp, err := browser.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		d.t.Fatalf("scrape the server: %s, %v: %s", resp.Status, err, body)
	}
	return string(body)
}

// take adds a process's samples, and has promtool look at them the first time.
func (d *drill) take(all scraped, process, text string) {
	d.t.Helper()
	if !d.liked[process] {
		d.liked[process] = true
		if err := d.promtool(text, "check", "metrics"); err != nil {
			d.t.Error(err)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "sluice_") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		all[process+"/"+line[:at]] = line[at+1:]
		name, _, _ := strings.Cut(line[:at], "{")
		d.names[name] = true
	}
}

func (d *drill) promtool(input string, args ...string) error {
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "promtool", args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("promtool %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// awaitCalm waits until workers can do their work, and have the VMs that they want.
func (d *drill) awaitCalm(workers ...string) scraped {
	d.t.Helper()
	var now scraped
	d.f.Eventually(2*time.Minute, func() error {
		now = d.scrape(workers...)
		for _, w := range workers {
			if now[w+`/sluice_pool_vms{state="ready"}`] != "1" || now[w+"/sluice_ready"] != "1" ||
				now[w+"/sluice_disks_stalled"] != "0" {
				return fmt.Errorf("worker %s isn't ready", w)
			}
		}
		return nil
	})
	return now
}

// await waits until samples are there and aren't 0 (of failures: are three or more), and just these
// alerts fire. On a busy host others may, for a moment: a store that takes two seconds has stalled.
func (d *drill) await(what string, samples, workers []string, firing ...string) {
	d.t.Helper()
	d.f.Eventually(2*time.Minute, func() error {
		now := d.scrape(workers...)
		for _, sample := range samples {
			value := now[sample]
			if value == "" || value == "0" ||
				strings.HasSuffix(sample, "_failures_total") && strings.Contains("12", value) {
				return fmt.Errorf("%s: %s is %q", what, sample, value)
			}
		}
		if err := d.check(now, firing); err != nil {
			return fmt.Errorf("%s: of the drilled alerts just %v should fire: %w",
				what, firing, err)
		}
		return nil
	})
}

// check has Prometheus's own evaluator say which alerts fire, once what is now has lasted, and
// has been calm before.
func (d *drill) check(now scraped, firing []string) error {
	d.t.Helper()
	var b strings.Builder
	rules, err := filepath.Abs("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		d.t.Fatal(err)
	}
	fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: 1m\n", rules)
	b.WriteString("tests:\n- interval: 1m\n  input_series:\n")
	fmt.Fprintf(&b, "  - {series: 'up{job=\"sluice-server\"}', values: '1+0x30'}\n")
	for key, value := range now {
		before, ok := d.calm[key]
		if !ok {
			before = "_"
		} else {
			before += "+0"
		}
		fmt.Fprintf(&b, "  - {series: '%s', values: '%sx10 %s+0x20'}\n", series(key), before, value)
	}
	for key, value := range d.calm {
		if _, ok := now[key]; !ok {
			fmt.Fprintf(&b, "  - {series: '%s', values: '%s+0x10 stale'}\n", series(key), value)
		}
	}
	b.WriteString("  promql_expr_test:\n")
	for _, alert := range drilled {
		fires := 0
		for _, x := range firing {
			if x == alert {
				fires = 1
			}
		}
		fmt.Fprintf(&b,
			"  - expr: '(count(ALERTS{alertname=\"%s\", alertstate=\"firing\"}) > bool 0)"+
				" or vector(0)'\n"+
				"    eval_time: 18m\n    exp_samples: [{labels: '{}', value: %d}]\n", alert, fires)
	}
	file := filepath.Join(filepath.Dir(d.release), "drill.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.promtool("", "test", "rules", file)
}

// series is a sample's name as a scrape by Prometheus has it: with the job and the instance.
func series(key string) string {
	process, sample, _ := strings.Cut(key, "/")
	job := "sluice-worker"
	if process == "server" {
		job = "sluice-server"
	}
	name, labels, _ := strings.Cut(strings.TrimSuffix(sample, "}"), "{")
	if labels != "" {
		labels += ","
	}
	return fmt.Sprintf(`%s{%sjob="%s",instance="%s"}`, name, labels, job, process)
}

// checkNames: whatever alerts and dashboard ask for was exposed.
func (d *drill) checkNames() {
	d.t.Helper()
	asked := regexp.MustCompile(`\bsluice_[a-z0-9_]+`)
	for _, file := range []string{"prometheus/alerts.yaml", "grafana/sluice.json"} {
		text, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			d.t.Fatal(err)
		}
		names := asked.FindAllString(string(text), -1)
		if len(names) < 10 {
			d.t.Errorf("%s asks for %d metrics: this test has become blind", file, len(names))
		}
		for _, name := range names {
			if !d.names[name] {
				d.t.Errorf("%s asks for %s, which no process exposes", file, name)
			}
		}
	}
}
