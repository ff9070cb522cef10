package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// secretFleet is a fleet with a machine that has a secret, and what must be seen nowhere.
type secretFleet struct {
	*fleettest.Fleet
	t       *testing.T
	m       api.Machine
	secret  string // of the machine's app
	content string // of a file on its disk
}

// TestKeysAndSecrets: a machine of a fleet has an encrypted disk and its app's secrets, through
// moves, crashes, new keys of its network and of the fleet; and nothing that the fleet writes or
// answers has any of them.
func TestKeysAndSecrets(t *testing.T) {
	f := &secretFleet{Fleet: fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1}), t: t,
		secret: "secret-" + rand.Text(), content: "content-" + rand.Text()}
	if got := f.SluiceIn(strings.NewReader(f.secret+"\n"), "secret", "set", "TOKEN", "--network",
		"green", "--app", "test", "--new"); got.Code != 0 {
		t.Fatalf("secret set: %+v", got)
	}
	cfg := idle(api.Service{Name: "says", Cmd: []string{"sh", "-c",
		"printf %s \"$TOKEN\" | sha256sum > /data/said; exec sleep 1000000"}})
	cfg.Env = map[string]string{"TOKEN": "of the config", "PLAIN": "yes"}
	f.m = f.Create("keeper", "green", "w1", cfg)
	f.Run(f.m.ID, "sh", "-c", "echo "+f.content+" > /data/content; sync")
	for _, step := range []struct {
		name string
		run  func()
	}{{"as it was created", f.expect}, {"moved", f.moves}, {"rekeyed", f.rekeys},
		{"its VM killed", f.fails}, {"the fleet's key changed", f.changesFleetKey},
		{"a new secret", f.changesSecret}, {"nothing is seen", f.seenNowhere},
		{"read by an operator", f.operatorReads}} {
		if ok := t.Run(step.name, func(t *testing.T) { f.t = t; step.run() }); !ok {
			return
		}
	}
}

// expect fails unless the machine has its content and its secret.
func (f *secretFleet) expect() {
	f.t.Helper()
	f.m = f.WaitHealthy(f.m.ID, time.Minute)
	if !f.m.Encrypted {
		f.t.Error("the disk isn't said to be encrypted")
	}
	if got := strings.TrimSpace(f.Run(f.m.ID, "cat", "/data/content")); got != f.content {
		f.t.Errorf("the disk has %q", got)
	}
	if got := strings.TrimSpace(f.Run(f.m.ID, "sh", "-c", "echo $TOKEN $PLAIN")); got !=
		f.secret+" yes" {
		f.t.Errorf("a command has %q in its environment", got)
	}
	sum := f.Run(f.m.ID, "sh", "-c", "printf %s \"$TOKEN\" | sha256sum")
	if said := f.Run(f.m.ID, "cat", "/data/said"); said != sum {
		f.t.Errorf("a service was started with another secret: %q, %q", said, sum)
	}
}

func (f *secretFleet) moves() {
	to := map[string]string{"w1": "w2", "w2": "w1"}[f.m.Worker]
	var mv api.Move
	f.Eventually(time.Minute, func() (err error) { // a server that was just started knows no worker
		mv, err = f.MigrateMachine(f.t.Context(), f.m.ID, to)
		return err
	})
	mv, err := f.WaitMove(f.t.Context(), mv.ID)
	if err != nil || mv.Step != "done" {
		f.t.Fatalf("move: %+v, %v", mv, err)
	}
	f.expect()
}

// rekeys kills the server as soon as it has taken a rekey, which goes on after.
func (f *secretFleet) rekeys() {
	n, err := f.RekeyNetwork(f.t.Context(), "green")
	if err != nil || n.Key != 2 {
		f.t.Fatalf("%+v, %v", n, err)
	}
	if err := f.RestartServer(); err != nil {
		f.t.Fatal(err)
	}
	if got := f.Sluice("network", "rekey", "green", "--json"); got.Code != 0 {
		f.t.Fatalf("rekey: %+v", got)
	}
	f.expect()
	f.moves()
}

// fails kills the VM: the machine is started anew from its disk.
func (f *secretFleet) fails() {
	vms, err := f.VMs(f.m.Worker)
	if err != nil {
		f.t.Fatal(err)
	}
	before := f.m.InstanceID
	for _, vm := range vms {
		if vm.Machine == f.m.ID {
			f.KillInVM(f.m.Worker, "init", vm.ID)
		}
	}
	f.Eventually(time.Minute, func() error {
		now, err := f.Machine(f.t.Context(), f.m.ID)
		if err == nil && (now.InstanceID == before || !now.Healthy) {
			err = fmt.Errorf("it is %s: %s", now.State, now.Reason)
		}
		return err
	})
	f.expect()
}

// changesFleetKey starts the server with a newer key and the older, then without the older, and
// with neither, which it refuses.
func (f *secretFleet) changesFleetKey() {
	file, older := filepath.Join(f.Dir, "fleet.key"), filepath.Join(f.t.TempDir(), "older.key")
	old, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	put := func(file string, content []byte) {
		f.t.Helper()
		if err := atomicfile.Write(file, content, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	newer := []byte(hex.EncodeToString([]byte(rand.Text() + rand.Text())[:32]))
	put(older, old)
	put(file, newer)
	if err := f.RestartServer("--fleet-key-file", older); err != nil {
		f.t.Fatal(err)
	}
	if err := f.RestartServer(); err != nil {
		f.t.Fatalf("the older key is still needed: %v", err)
	}
	f.moves()
	put(file, old)
	if err := f.RestartServer(); err == nil || !strings.Contains(err.Error(), "fleet's keys") {
		f.t.Errorf("a server without the key: %v", err)
	}
	if err := f.RestartServer("--start-without-keys"); err != nil {
		f.t.Errorf("a server that is to do without the key: %v", err)
	}
	f.m = f.WaitHealthy(f.m.ID, time.Minute)
	if got := f.Sluice("network", "rekey", "green"); got.Code != 6 {
		f.t.Errorf("a rekey without the key: %+v", got)
	}
	put(file, newer)
	if err := f.RestartServer(); err != nil {
		f.t.Fatal(err)
	}
	f.expect()
}

func (f *secretFleet) changesSecret() {
	next := "secret-" + rand.Text()
	file := filepath.Join(f.t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if got := f.Sluice("secret", "set", "TOKEN", next, "--network", "green", "--app",
		"test"); got.Code != 2 ||
		strings.Contains(got.Stderr, next) {
		f.t.Errorf("a value as an argument: %+v", got)
	}
	if got := f.Sluice("secret", "set", "TOKEN", "@"+file, "--network", "green",
		"--app", "test"); got.Code != 0 {
		f.t.Fatalf("secret set: %+v", got)
	}
	f.expect() // nothing changes in what runs
	for _, verb := range []string{"stop", "start"} {
		if got := f.Sluice("machine", verb, f.m.ID); got.Code != 0 {
			f.t.Fatalf("%s: %+v", verb, got)
		}
	}
	f.secret = next
	f.expect()
}

// seenNowhere looks for the secret, the content and the key in all that the fleet has written, and
// in all that it answers. It is called when all of them have been in use.
func (f *secretFleet) seenNowhere() {
	k, err := f.MachineDiskKey(f.t.Context(), f.m.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := hex.DecodeString(k.Key)
	if err != nil {
		f.t.Fatal(err)
	}
	hidden := map[string][]byte{}
	for name, b := range map[string][]byte{"the secret": []byte(f.secret),
		"the content": []byte(f.content), "the key": key} {
		hidden[name] = b
		hidden[name+" in hex"] = []byte(hex.EncodeToString(b))
		hidden[name+" in base64"] = []byte(base64.StdEncoding.EncodeToString(b))
	}
	look := func(where string, data []byte) {
		for name, b := range hidden {
			if bytes.Contains(data, b) {
				f.t.Errorf("%s has %s", where, name)
			}
		}
	}
	files, marks := 0, 0
	err = filepath.WalkDir(f.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if bytes.Contains(data, []byte(f.m.ID)) {
			marks++
		}
		look(path, data)
		return nil
	})
	if err != nil || files < 20 || marks < 3 { // etcd, a log, a record of a worker
		f.t.Errorf("looked at %d files, %d of which know the machine: %v", files, marks, err)
	}
	for where, data := range f.answers() {
		look(where, data)
	}
}

// answers returns what the fleet says to an operator, and to who looks at a worker.
func (f *secretFleet) answers() map[string][]byte {
	all := map[string][]byte{}
	s, err := f.State()
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(f.Dir, "operator.token"))
	if err != nil {
		f.t.Fatal(err)
	}
	browser := f.Browser(strings.TrimSpace(string(token)))
	defer browser.CloseIdleConnections()
	machine := "/v1/machines/" + f.m.ID
	for _, path := range []string{"/v1/server", "/v1/machines", machine, machine + "/events",
		machine + "/services", machine + "/disk", machine + "/disk/stats", machine + "/logs",
		"/v1/networks", "/v1/networks/green/apps/test/secrets", "/v1/workers",
		"/v1/workers/w1", "/v1/images", "/metrics"} {
		req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, s.ServerURL+path, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		resp, err := browser.Do(req)
		if err != nil {
			f.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			f.t.Fatalf("GET %s: %d %s, %v", path, resp.StatusCode, body, err)
		}
		all["GET "+path] = body
	}
	for _, w := range []string{"w1", "w2"} {
		for _, path := range []string{"/debug/vms", "/metrics"} {
			body, err := f.HostRequest(context.Background(), w, http.MethodGet, path)
			if err != nil {
				f.t.Fatal(err)
			}
			all[w+path] = body
		}
	}
	for _, args := range [][]string{{"machine", "status", f.m.ID}, {"machine", "list", "--json"},
		{"secret", "list", "--network", "green", "--app", "test", "--json"},
		{"network", "list", "--json"}} {
		got := f.Sluice(args...)
		all[strings.Join(args, " ")] = []byte(got.Stdout + got.Stderr)
	}
	return all
}

// operatorReads: with the key, and only with it, an operator reads all of the disk.
func (f *secretFleet) operatorReads() {
	if got := f.Sluice("machine", "stop", f.m.ID); got.Code != 0 {
		f.t.Fatalf("stop: %+v", got)
	}
	file := filepath.Join(f.t.TempDir(), "disk.key")
	for _, code := range []int{0, 4} { // and no file is replaced
		if got := f.Sluice("machine", "disk-key", f.m.ID, "--out", file); got.Code != code {
			f.t.Fatalf("disk-key: %+v", got)
		}
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		f.t.Fatalf("the key file: %v, %v", st, err)
	}
	if got := f.Sluice("disk", "fsck", f.m.DiskURL, "--data", "--key-file", file); got.Code != 0 {
		f.t.Errorf("fsck with the key: %+v", got)
	}
	raw := filepath.Join(f.t.TempDir(), "disk.raw")
	if got := f.Sluice("disk", "export", f.m.DiskURL, raw); got.Code != 6 {
		f.t.Errorf("export without the key: %+v", got)
	}
	if got := f.Sluice("disk", "export", f.m.DiskURL, raw, "--key-file", file); got.Code != 0 {
		f.t.Fatalf("export with the key: %+v", got)
	}
	data, err := os.ReadFile(raw)
	if err != nil || !bytes.Contains(data, []byte(f.content)) {
		f.t.Errorf("the export lacks what was written: %v", err)
	}
	destroy(f.t, f.Fleet, f.m.ID)
}
