package control_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var ofApp = fleet.SecretScope{Network: "net", App: "app"}

// newKeyedFixture is a fleet with a key.
func newKeyedFixture(t *testing.T, workers ...string) *fixture {
	t.Helper()
	f := newFixture(t)
	var err error
	if f.keys, err = seal.New([32]byte([]byte("a-fleet-key-of-exactly-32-bytes!"))); err != nil {
		t.Fatal(err)
	}
	f.serve()
	for _, w := range workers {
		f.worker(w)
	}
	return f
}

// told returns what a worker is told of a machine alone.
func (f *fixture) told(worker fleet.WorkerID, id fleet.MachineID) fleet.Private {
	f.t.Helper()
	set, err := f.c.Assignments(f.t.Context(), worker, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return set.Private[id]
}

// TestADiskChangesItsKeyWhenNobodyAttachesIt: a VM that is about to attach a disk may have been
// told the older key only. Until it has, the disk keeps that, and both are told.
func TestADiskChangesItsKeyWhenNobodyAttachesIt(t *testing.T) {
	f := newKeyedFixture(t)
	w := f.worker("w1")
	runs := f.create("runs", "net").Machine
	w.set(func() { w.all, w.further = true, true })
	v, err := f.c.CreateMachine(t.Context(), request("starts", "net"))
	if err != nil {
		t.Fatal(err)
	}
	starts := v.Machine
	keyOf := func(m fleet.Machine) string {
		f.disks.mu.Lock()
		defer f.disks.mu.Unlock()
		return f.disks.keys[m.Disk.URL]
	}
	before, ran := keyOf(starts), keyOf(runs)
	if before == "" || before == ran || !strings.HasPrefix(before, "file:") {
		t.Fatalf("keys %q and %q", before, ran)
	}
	n, err := f.c.RekeyNetwork(t.Context(), "net")
	if err != nil || n.Key != 2 || n.Encrypted != 2 {
		t.Fatalf("%+v, %v", n, err)
	}
	f.eventually("the disk of what runs has another key", func() bool {
		return keyOf(runs) != ran && f.machine("runs").Machine.DiskKey == 2
	})
	again, err := f.c.RekeyNetwork(t.Context(), "net")
	if err != nil || again.Key != 2 || len(again.Waiting) != 1 ||
		again.Waiting[0].Object != string(starts.ID) || again.Waiting[0].Remedy == "" {
		t.Errorf("a second rekey meanwhile: %+v, %v", again, err)
	}
	if keyOf(starts) != before {
		t.Error("the disk of what starts was changed")
	}
	if told := f.told("w1", starts.ID).DiskKeys; len(told) != 2 {
		t.Errorf("its VM is told %d keys", len(told))
	}
	w.set(func() { w.all = false })
	f.eventually("it runs, and its disk has another key", func() bool {
		return f.machine("starts").Machine.DiskKey == 2 && keyOf(starts) != before
	})
	f.eventually("the older key is dropped", func() bool {
		return len(f.told("w1", starts.ID).DiskKeys) == 1 &&
			len(f.told("w1", runs.ID).DiskKeys) == 1
	})
}

// TestSecretsAreToldToTheirAppOnly: a machine of the app is told, its history says that there is
// something new, and neither the state nor an answer has the value.
func TestSecretsAreToldToTheirAppOnly(t *testing.T) {
	f := newKeyedFixture(t, "w1")
	mine := f.create("mine", "net").Machine
	other := request("other", "net")
	other.App = "else"
	var others []fleet.MachineID
	for _, req := range []fleet.CreateMachine{other, request("mine", "elsewhere")} {
		v, err := f.c.CreateMachine(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, v.Machine.ID)
	}
	const value = "what-nobody-else-may-know"
	s, err := f.c.SetSecret(t.Context(), ofApp, "TOKEN", []byte(value))
	if err != nil || s.Digest == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	if got := f.told("w1", mine.ID).Secrets["TOKEN"]; got != value {
		t.Errorf("its machine is told %q", got)
	}
	for _, id := range others {
		if got := f.told("w1", id); len(got.Secrets) > 0 || len(got.DiskKeys) != 1 {
			t.Errorf("one of another app, or of another network's app of that name, is told %d "+
				"secrets and %d keys", len(got.Secrets), len(got.DiskKeys))
		}
	}
	events, err := f.c.MachineEvents(t.Context(), string(mine.ID))
	if err != nil {
		t.Fatal(err)
	}
	last := events[len(events)-1]
	if last.Event != "secret" || last.Info["name"] != "TOKEN" || last.Info["takes_effect"] == "" {
		t.Errorf("the history ends with %+v", last)
	}
	f.expectHidden(value, f.told("w1", mine.ID).DiskKeys[0])
	if err := f.c.UnsetSecret(t.Context(), ofApp, "TOKEN"); err != nil {
		t.Fatal(err)
	}
	if got := f.told("w1", mine.ID).Secrets; len(got) > 0 {
		t.Errorf("it is still told %d secrets", len(got))
	}
	if err := f.c.UnsetSecret(t.Context(), ofApp, "TOKEN"); !errs.Is(err, errs.NotFound) {
		t.Errorf("unset twice: %v", err)
	}
}

// expectHidden fails if a secret or a key is in the state, beside a disk, in an answer, or in what
// a log would have of the assignments.
func (f *fixture) expectHidden(secret string, key []byte) {
	f.t.Helper()
	ctx := f.t.Context()
	var seen bytes.Buffer
	kvs, _, err := f.store.List(ctx, "")
	if err != nil || len(kvs) < 5 {
		f.t.Fatalf("%d records, %v", len(kvs), err)
	}
	for _, kv := range kvs {
		seen.Write(kv.Value)
	}
	f.disks.mu.Lock()
	for _, doc := range f.disks.docs {
		seen.Write(doc)
	}
	f.disks.mu.Unlock()
	machines, err1 := f.c.Machines(ctx, fleet.MachineFilter{})
	secrets, err2 := f.c.Secrets(ctx, ofApp)
	networks, err3 := f.c.Networks(ctx)
	set, err4 := f.c.Assignments(ctx, "w1", 0)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			f.t.Fatal(err)
		}
	}
	for _, v := range []any{machines, secrets, networks, set.Assignments} {
		if err := json.NewEncoder(&seen).Encode(v); err != nil {
			f.t.Fatal(err)
		}
	}
	fmt.Fprintf(&seen, "%v %+v %#v %s", set, set, set, set.Private)
	for _, hidden := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)),
		hex.EncodeToString([]byte(secret)), string(key), hex.EncodeToString(key),
		base64.StdEncoding.EncodeToString(key)} {
		if bytes.Contains(seen.Bytes(), []byte(hidden)) {
			f.t.Errorf("%q can be seen", hidden)
		}
	}
}

// TestWithoutAKey: a fleet without a key says what it lacks, and changes nothing.
func TestWithoutAKey(t *testing.T) {
	f := newFixture(t, "w1")
	yes := true
	encrypted := request("db", "net")
	encrypted.Encrypt = &yes
	_, create := f.c.CreateMachine(t.Context(), encrypted)
	_, rekey := f.c.RekeyNetwork(t.Context(), "net")
	_, set := f.c.SetSecret(t.Context(), ofApp, "TOKEN", []byte("x"))
	for what, err := range map[string]error{"create": create, "rekey": rekey, "secret": set} {
		if !errs.Is(err, errs.Unsupported) || !strings.Contains(errs.RemedyOf(err),
			"--fleet-key-file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, err := f.c.Machines(t.Context(), fleet.MachineFilter{}); err != nil || len(all) != 0 {
		t.Errorf("%d machines, %v", len(all), err)
	}
	clear := f.create("web", "net").Machine
	if _, err := f.c.DiskKey(t.Context(), string(clear.ID)); clear.DiskKey != 0 ||
		!errs.Is(err, errs.Conflict) {
		t.Errorf("key %d of a disk in the clear: %v", clear.DiskKey, err)
	}
}

// TestInTheClearByRequest: a fleet with a key makes a disk in the clear for who asks for it.
func TestInTheClearByRequest(t *testing.T) {
	f := newKeyedFixture(t, "w1")
	no := false
	req := request("web", "net")
	req.Encrypt = &no
	v, err := f.c.CreateMachine(t.Context(), req)
	if err != nil || v.Machine.DiskKey != 0 {
		t.Fatalf("key %d, %v", v.Machine.DiskKey, err)
	}
	if got := f.told("w1", v.Machine.ID); len(got.DiskKeys) > 0 {
		t.Error("its VM is told a key")
	}
}

// TestSecretsThatAreRefused: each is refused with a remedy, and what was set stays.
func TestSecretsThatAreRefused(t *testing.T) {
	f := newKeyedFixture(t)
	set := func(app fleet.AppName, name, value string) error {
		_, err := f.c.SetSecret(t.Context(), fleet.SecretScope{Network: "net", App: app}, name,
			[]byte(value))
		return err
	}
	if err := set("app", "GOOD", "value"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"no name": set("app", "", "x"), "a digit first": set("app", "1A", "x"),
		"no app": set("", "A", "x"), "a slash": set("app", "A/B", "x"),
		"the platform's": set("app", "SLUICE_NAME", "x"), "empty": set("app", "GOOD", ""),
		"a zero": set("app", "GOOD", "a\x00b"), "no text": set("app", "GOOD", "\xff\xfe"),
		"too long": set("app", "GOOD", strings.Repeat("x", fleet.MaxSecretBytes+1))} {
		if !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	var full error
	for i := 0; i < 4 && full == nil; i++ {
		full = set("app", fmt.Sprintf("BIG%d", i), strings.Repeat("x", fleet.MaxSecretBytes))
	}
	if !errs.Is(full, errs.Exhausted) || errs.RemedyOf(full) == "" {
		t.Errorf("too much: %v", full)
	}
	all, err := f.c.Secrets(t.Context(), ofApp)
	if err != nil || len(all) != 2 || all[1].Name != "GOOD" || all[1].Sealed != nil {
		t.Errorf("left: %+v, %v", all, err)
	}
}
