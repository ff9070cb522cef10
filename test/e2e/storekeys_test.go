package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// keyFleet is a fleet over an S3 server with accounts, of which each has a key.
type keyFleet struct {
	*fleettest.Fleet
	t        *testing.T
	root     string // secret of the S3 server's administrator
	endpoint string
	machines []api.Machine
	writes   atomic.Int64
}

// TestStoreKeys: the server alone is told the store's key. Workers get it from the server, take the
// next one while machines write, and have it nowhere but in memory; one that is started again
// without the server goes on, and one that is shut out gets none.
func TestStoreKeys(t *testing.T) {
	f := &keyFleet{Fleet: fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, Store: "s3",
		WorkerArgs: []string{"--store-credentials", "server"}}), t: t}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	f.endpoint = "http://[" + f.ServerAddress().String() + "]:7480"
	for _, kv := range s.StoreEnv {
		if v, ok := strings.CutPrefix(kv, "AWS_SECRET_ACCESS_KEY="); ok {
			f.root = v
		}
	}
	for _, w := range []string{"w1", "w2"} {
		cfg := fleettest.LedgerConfig()
		cfg.Services = append(cfg.Services, api.Service{Name: "beats", Cmd: []string{"sh", "-c",
			"while :; do date +%s > /data/beat; sync /data/beat; cat /data/beat >> /data/beats; " +
				"sleep 0.5; done"}})
		f.machines = append(f.machines, f.Create("m-"+w, "green", w, cfg))
	}
	for _, step := range []struct {
		name string
		run  func()
	}{{"the first account", func() { f.rotate("first") }},
		{"changed while machines write", f.rotatesUnderLoad},
		{"a key that the store refuses", f.refusesSlip},
		{"nothing is seen", f.seenNowhere},
		{"without the server", f.worksAlone},
		{"shut out", f.shutsOut}} {
		if ok := t.Run(step.name, func(t *testing.T) { f.t = t; step.run() }); !ok {
			return
		}
	}
}

// secretOf is the secret of an account of this test.
func (f *keyFleet) secretOf(account string) string {
	return "secret-of-" + account + "-" + f.root[:8]
}

func (f *keyFleet) admin(args ...string) {
	f.t.Helper()
	binary := filepath.Join(filepath.Dir(f.Binary()), "..", ".cache/bin/versitygw")
	out, err := exec.CommandContext(f.t.Context(), binary, append([]string{"admin", "--access",
		"sluice", "--secret", f.root, "--endpoint-url", f.endpoint}, args...)...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// write puts an account's key where the server reads it.
func (f *keyFleet) write(account, secret string) {
	f.t.Helper()
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", account,
		secret)
	if err := atomicfile.Write(filepath.Join(f.Dir, "store.credentials"), []byte(text),
		0o600); err != nil {
		f.t.Fatal(err)
	}
}

// rotate changes the store's key to that of a new account, as docs/security.md says, and returns
// when the one before can be deleted.
func (f *keyFleet) rotate(account string) {
	f.t.Helper()
	f.admin("create-user", "--access", account, "--secret", f.secretOf(account), "--role", "admin")
	f.write(account, f.secretOf(account))
	f.Eventually(time.Minute, func() error {
		c, err := f.StoreCredentials(f.t.Context())
		if err == nil && (!c.Settled || c.KeyID != account) {
			err = fmt.Errorf("%+v", c)
		}
		return err
	})
	f.t.Log(f.Sluice("store", "credentials").Stdout)
}

// rotatesUnderLoad changes the key under machines that write, and deletes the one before: no write
// fails.
func (f *keyFleet) rotatesUnderLoad() {
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for _, m := range f.machines {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := f.Ledger(ctx, m.ID, "append")
				if err != nil && ctx.Err() == nil {
					failed.Store(&err)
				}
				f.writes.Add(1)
			}
		})
	}
	more := func(n int64) {
		want := f.writes.Load() + n
		f.Eventually(time.Minute, func() error {
			if got := f.writes.Load(); got < want {
				return fmt.Errorf("%d writes of %d", got, want)
			}
			return nil
		})
	}
	more(100)
	f.rotate("second")
	f.admin("delete-user", "--access", "first")
	more(200)
	cancel()
	wg.Wait()
	if err := failed.Load(); err != nil {
		f.t.Errorf("a write failed: %v", *err)
	}
	f.t.Logf("%d writes, and none failed", f.writes.Load())
	for _, m := range f.machines {
		now, err := f.Machine(f.t.Context(), m.ID)
		if err != nil || now.DiskStall != nil || now.InstanceID != m.InstanceID {
			f.t.Errorf("%s: %v, %+v", m.Name, err, now)
		}
	}
}

// refusesSlip: a key that the store doesn't take changes nothing, and is told.
func (f *keyFleet) refusesSlip() {
	before, err := f.StoreCredentials(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("second", "mistyped")
	f.Eventually(time.Minute, func() error {
		c, err := f.StoreCredentials(f.t.Context())
		if err == nil && (c.Trouble == "" || c.Settled || c.Generation != before.Generation) {
			err = fmt.Errorf("%+v", c)
		}
		return err
	})
	f.t.Log(f.Sluice("store", "credentials").Stdout)
	f.append()
	f.write("second", f.secretOf("second"))
	f.Eventually(time.Minute, func() error {
		c, err := f.StoreCredentials(f.t.Context())
		if err == nil && !c.Settled {
			err = fmt.Errorf("%+v", c)
		}
		return err
	})
}

// append has each machine make a record durable.
func (f *keyFleet) append() {
	f.t.Helper()
	for _, m := range f.machines {
		f.Eventually(time.Minute, func() error {
			_, err := f.Ledger(f.t.Context(), m.ID, "append")
			return err
		})
	}
}

// seenNowhere looks for the present secret in all files of the fleet but the one that has it, in
// answers, and in the command lines and environments of all processes.
func (f *keyFleet) seenNowhere() {
	secret := []byte(f.secretOf("second"))
	marks := 0
	look := func(path string, data []byte) {
		if bytes.Contains(data, []byte("sluice")) {
			marks++
		}
		if bytes.Contains(data, secret) {
			f.t.Errorf("%s has the secret", path)
		}
	}
	err := filepath.WalkDir(f.Dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || d != nil && path == filepath.Join(f.Dir, "accounts") {
			return fs.SkipDir // those of the S3 server
		}
		if err != nil || !d.Type().IsRegular() ||
			path == filepath.Join(f.Dir, "store.credentials") {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		look(path, data)
		return err
	})
	if err != nil {
		f.t.Error(err)
	}
	for _, kind := range []string{"cmdline", "environ"} {
		files, err := filepath.Glob("/proc/[0-9]*/" + kind)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, path := range files {
			if data, err := os.ReadFile(path); err == nil { // it may have ended
				look(path, data)
			}
		}
	}
	for _, args := range [][]string{{"store", "credentials", "--json"},
		{"worker", "show", "w1", "--json"}, {"machine", "list", "--json"}, {"audit", "list"}} {
		look(strings.Join(args, " "), []byte(f.Sluice(args...).Stdout))
	}
	for _, w := range []string{"w1", "w2"} {
		for _, path := range []string{"/debug/vms", "/metrics"} {
			if data, err := f.HostRequest(f.t.Context(), w, "GET", path); err == nil {
				look(w+path, data)
			}
		}
	}
	if marks < 20 {
		f.t.Errorf("only %d of all that was looked at knows Sluice", marks)
	}
}

// worksAlone: a worker's daemon that is started again while the server is away serves its machines:
// they go on writing. Nobody can ask them meanwhile, so they write down when they did.
func (f *keyFleet) worksAlone() {
	if err := f.KillServer(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	if err := f.KillDaemon(f.t.Context(), "w1"); err != nil {
		f.t.Fatal(err)
	}
	if err := f.Start(f.t.Context(), "w1"); err != nil {
		f.t.Fatal(err)
	}
	f.Eventually(time.Minute, func() error {
		vms, err := f.VMs("w1")
		if err == nil && len(vms) == 0 {
			err = errors.New("the worker knows no machine")
		}
		return err
	})
	alone := time.Now()
	time.Sleep(8 * time.Second) // longer than a disk waits before its machine is frozen
	until := time.Now()
	if err := f.StartServer(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.append()
	beats := 0
	for line := range strings.Lines(f.Run(f.machines[0].ID, "cat", "/data/beats")) {
		at, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err == nil && at > alone.Unix()+1 && at < until.Unix()-1 {
			beats++
		}
	}
	if beats < 3 {
		f.t.Errorf("%d writes were durable between %s and %s", beats, alone, until)
	}
}

// shutsOut: a worker that is revoked gets no credentials any more.
func (f *keyFleet) shutsOut() {
	if got := f.Sluice("worker", "revoke", "w2"); got.Code != 0 {
		f.t.Fatalf("%+v", got)
	}
	f.rotate("third")
	c, err := f.StoreCredentials(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, w := range c.Workers {
		if w.Worker == "w2" && (w.State != api.StoreCredentialsRevoked || w.KeyID == "third") {
			f.t.Errorf("%+v", w)
		}
	}
}
