package httpapi_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// in makes a machine of app shop in a network.
func in(t *testing.T, f *httpapitest.Fleet, network, name string) fleet.MachineID {
	t.Helper()
	v, err := f.CreateMachine(t.Context(), fleet.CreateMachine{Name: fleet.MachineName(name),
		App: "shop", Network: fleet.NetworkName(network),
		Config: fleet.MachineConfig{Image: "base"}})
	if err != nil {
		t.Fatal(err)
	}
	return v.Machine.ID
}

// TestNetworksDontSeeEachOther: two networks have a machine of the same name, and neither learns of
// the other's, in any way in which a machine is named.
func TestNetworksDontSeeEachOther(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	prod, test := in(t, f, "prod", "web-1"), in(t, f, "test", "web-1")
	token := addToken(t, f, "tester", []fleet.Grant{{Network: "test", Verb: "operate"}})
	for _, ref := range []string{"web-1", "shop~web-1", string(test)} {
		status, _, body := request(t, s, "GET", "/v1/machines/"+ref, token, "")
		if status != 200 || !strings.Contains(string(body), string(test)) ||
			strings.Contains(string(body), string(prod)) {
			t.Errorf("%s: %d %s", ref, status, body)
		}
	}
	if status, _, body := request(t, s, "GET", "/v1/machines/web-1", operatorToken,
		""); status != http.StatusConflict {
		t.Errorf("a name that is two machines' to the operator: %d %s", status, body)
	}
	// What is taken elsewhere is free here.
	if in(t, f, "prod", "web-2") == "" {
		t.Fatal("no machine")
	}
	create := func(network, name string) (int, string) {
		status, _, body := request(t, s, "POST", "/v1/machines", token, `{"name":"`+name+
			`","app":"shop","network":"`+network+`","config":{"image":"base"}}`)
		return status, string(body)
	}
	if status, body := create("test", "web-2"); status != 201 {
		t.Errorf("a name that another network has: %d %s", status, body)
	}
	for _, name := range []string{"web-1", "none"} { // whether it is there or not
		status, body := create("prod", name)
		if status != http.StatusForbidden || strings.Contains(body, name) {
			t.Errorf("create in another network: %d %s", status, body)
		}
	}
	if status, body := create("test", "web-1"); status != http.StatusConflict {
		t.Errorf("a name that this network has: %d %s", status, body)
	}
}

// TestPagesOfWhatOneSees: what a caller doesn't see neither shortens its pages nor is in their
// tokens.
func TestPagesOfWhatOneSees(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	mine := map[string]bool{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		in(t, f, "prod", name)
		mine[string(in(t, f, "test", name))] = true
	}
	token := addToken(t, f, "tester", []fleet.Grant{{Network: "test", Verb: "read"}})
	next, sizes := "", []int{}
	for {
		_, _, body := request(t, s, "GET", "/v1/machines?limit=2&page="+next, token, "")
		var list api.List[api.Machine]
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(list.Items))
		for _, m := range list.Items {
			if !mine[m.ID] {
				t.Errorf("machine %s of network %s", m.ID, m.Network)
			}
			delete(mine, m.ID)
		}
		if next = list.Next; next == "" {
			break
		}
	}
	if len(mine) != 0 || len(sizes) != 3 || sizes[0] != 2 || sizes[1] != 2 {
		t.Errorf("pages of %v, missing %v", sizes, mine)
	}
}

// fullFleet has room for nothing.
type fullFleet struct{ *httpapitest.Fleet }

// CreateMachine implements fleet.Machines.
func (fullFleet) CreateMachine(context.Context, fleet.CreateMachine) (fleet.MachineView, error) {
	return fleet.MachineView{}, &fleet.NamesWorkers{
		Err:  errs.New(errs.Exhausted, "no worker has room: w7 lacks memory"),
		Else: errs.New(errs.Exhausted, "no worker has room")}
}

// TestErrorsNameNoWorkersToTenants: who sees the whole fleet is told which workers there are, and
// others are told the rest.
func TestErrorsNameNoWorkersToTenants(t *testing.T) {
	f := httpapitest.New()
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	deps.Machines = fullFleet{f}
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken}, deps)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()
	tenant := addToken(t, f, "tester", []fleet.Grant{{Network: "test", Verb: "operate"}})
	all := addToken(t, f, "ops", []fleet.Grant{{Verb: "operate"}})
	const body = `{"name":"x","app":"shop","network":"test","config":{"image":"base"}}`
	for token, told := range map[string]bool{tenant: false, all: true, operatorToken: true} {
		status, _, answer := request(t, s, "POST", "/v1/machines", token, body)
		if status < 400 || strings.Contains(string(answer), "w7") != told ||
			!strings.Contains(string(answer), "no worker has room") {
			t.Errorf("%d %s, told: %v", status, answer, told)
		}
	}
}
