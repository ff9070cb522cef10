package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
)

// TestStoreCredentialsAreShown: what somebody who changes the store's key must know, in words.
func TestStoreCredentialsAreShown(t *testing.T) {
	w := func(name, state string) api.WorkerStoreCredentials {
		return api.WorkerStoreCredentials{Worker: name, State: state, Liveness: "alive"}
	}
	of := func(settled bool, trouble string,
		workers ...api.WorkerStoreCredentials) api.StoreCredentials {
		return api.StoreCredentials{Needed: true, Source: "file", KeyID: "new", Generation: 7,
			Settled: settled, Trouble: trouble, Workers: workers}
	}
	role := of(true, "", w("w1", api.StoreCredentialsCurrent))
	role.Role, role.Workers[0].Expires = "arn:x", time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	withheld := of(true, "", w("w1", api.StoreCredentialsOwn))
	withheld.Withheld = true
	for want, s := range map[string]api.StoreCredentials{
		"takes no credentials":          {},
		"Settled: keys before this one": of(true, "", w("w1", api.StoreCredentialsCurrent)),
		"2 workers have not said that they use the newest, the first is w2": of(false, "",
			w("w1", api.StoreCredentialsCurrent), w("w2", api.StoreCredentialsOlder),
			w("w3", api.StoreCredentialsUnknown), w("w4", api.StoreCredentialsRevoked)),
		"newer ones can't be used: the store refuses it": of(false, "the store refuses it",
			w("w1", api.StoreCredentialsCurrent)),
		"sessions of arn:x":        role,
		"2030-01-02T03:04:05.000Z": role,
		"none: each has its own":   withheld,
	} {
		var out strings.Builder
		err := printStoreCredentials(&out, s)
		if err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s, %v", want, out.String(), err)
		}
	}
}

// TestWhoseStoreCredentialsAWorkerUses is said by a flag, or by its environment.
func TestWhoseStoreCredentialsAWorkerUses(t *testing.T) {
	for _, name := range namesStoreKeys {
		t.Setenv(name, "")
	}
	own := func(from string) bool {
		cfg := workerConfig{storeFrom: from, name: "w1", data: t.TempDir()}
		return cfg.usesOwnStoreKeys()
	}
	if own(storeKeysAuto) || own(storeKeysServer) || !own(storeKeysOwn) {
		t.Error("without credentials in the environment")
	}
	for _, name := range namesStoreKeys {
		t.Setenv(name, "x")
		if !own(storeKeysAuto) || own(storeKeysServer) || !own(storeKeysOwn) {
			t.Errorf("with %s", name)
		}
		t.Setenv(name, "")
	}
	if err := checkStoreKeySource("mine"); err == nil {
		t.Error("there is no such source")
	}
}
