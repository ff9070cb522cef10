package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestQuotasByTheCommandLine: what is set is shown with what is used, and who uses it.
func TestQuotasByTheCommandLine(t *testing.T) {
	c := story(t)
	c.must("quota", "set", "--default", "--machines", "5", "--memory", "8GiB")
	out := c.must("quota", "set", "prod", "--machines", "20", "--cpus", "16.5", "--disk", "1TiB",
		"--execs", "0", "--logs", "unlimited")
	for _, want := range []string{"machines 2 20\n", "cpus 1.5 16.5\n",
		"memory 1.2GiB 8GiB (default)\n", "disk 2GiB 1TiB\n", "execs 0 0\n",
		"logs 0 unlimited\n", "secrets 0 unlimited\n"} {
		if !strings.Contains(squeezed(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	c.must("quota", "set", "prod", "--app", "shop", "--running", "3")
	c.must("quota", "set", "--fleet", "--images", "10", "--image-bytes", "100")
	shown := c.must("quota", "show", "prod")
	if !strings.Contains(squeezed(shown), "NETWORK APP MACHINES RUNNING") ||
		!strings.Contains(squeezed(shown), "prod shop 2 2/3") {
		t.Errorf("shown is\n%s", shown)
	}
	var got shownQuota
	if err := json.Unmarshal([]byte(c.must("quota", "show", "prod", "--json")), &got); err != nil ||
		got.Limits["disk_bytes"] != 1<<40 || got.Own["logs"] != -1 || got.Used["machines"] != 2 ||
		len(got.Apps) != 1 || got.Apps[0].ID != "network/prod/shop" {
		t.Errorf("%+v, %v", got, err)
	}
	list := c.must("quota", "list")
	for _, want := range []string{"(default)", "(fleet)", "0/10", "0B/100GiB", "2/20"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	c.must("quota", "set", "prod", "--machines", "default")
	if out := c.must("quota", "show", "prod"); !strings.Contains(out, "5 (default)") {
		t.Errorf("shown is\n%s", out)
	}
	c.must("quota", "clear", "prod")
	if _, _, code := c.run("quota", "clear", "prod"); code != exitNotFound {
		t.Errorf("cleared twice: exit %d", code)
	}
}

// squeezed is a text with one space where it has several.
func squeezed(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

// TestBadQuotas change nothing, and say why.
func TestBadQuotas(t *testing.T) {
	c := story(t)
	before := c.fleet.Mutations()
	for _, args := range []string{"set prod", "set --machines 1", "set prod --machines many",
		"set prod --machines -1", "set prod --cpus nan", "set prod --memory 1.5B", "show", "clear",
		"set prod --default --machines 1", "set --default --fleet --machines 1",
		"set --app shop --machines 1", "set prod --images 1", "set --fleet --machines 1",
		"set --default --app shop --machines 1", "set prod --disk 9999999P"} {
		if _, stderr, code := c.run(append([]string{"quota"}, strings.Fields(args)...)...); code !=
			exitUsage || stderr == "" {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
	c.as(fleet.Grant{Network: "prod", Verb: "admin"})
	if _, stderr, code := c.run("quota", "set", "prod", "--machines", "99"); code != exitDenied {
		t.Errorf("by an admin of the network alone: exit %d, %s", code, stderr)
	}
	if c.fleet.Mutations() != before+1 { // the token
		t.Error("something is changed")
	}
	if out := c.must("quota", "list"); !strings.Contains(out, "prod") {
		t.Errorf("its own isn't shown: %s", out)
	}
	c.as(fleet.Grant{Network: "other", Verb: "admin"})
	if out := c.must("quota", "list"); strings.Contains(out, "prod") {
		t.Errorf("another's is shown: %s", out)
	}
}
