package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keyWorld is a state and a pool of disks that outlive servers. A server dies at one of its steps:
// a commit, or a change of a disk. What it did until then stays.
type keyWorld struct {
	t     *testing.T
	state state.Store
	pool  *memblob.Store

	mu    sync.Mutex
	left  int  // steps that are still done
	after bool // the last step is done, and nobody hears of it
}

var errDied = errs.New(errs.Unavailable, "the server died")

// step does one step, unless the server has died before it, or dies in it.
func (w *keyWorld) step(do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left--
	switch {
	case w.left > 0:
		return do()
	case w.left == 0 && w.after:
		_ = do()
	}
	return errDied
}

// dyingState is the state as a server sees it.
type dyingState struct {
	state.Store
	w *keyWorld
}

func (s dyingState) Commit(ctx context.Context, t state.Txn) (rev int64, err error) {
	err = s.w.step(func() (err error) {
		rev, err = s.Store.Commit(ctx, t)
		return err
	})
	return rev, err
}

// dyingDisks are the disks as a server sees them, by the real engine.
type dyingDisks struct{ w *keyWorld }

const poolURL = "mem://pool/"

func (d dyingDisks) path(url string) string { return strings.TrimPrefix(url, poolURL) }

func (d dyingDisks) ForkImage(ctx context.Context, i fleet.Image, url string, _ int64,
	key disk.KEK) error {
	_, err := disk.Fork(ctx, d.w.pool, d.path(i.DiskURL), i.Checkpoint, d.path(url),
		disk.ForkOptions{Key: key})
	return err
}

func (d dyingDisks) Rekey(ctx context.Context, url string, old, next disk.KEK) error {
	return d.w.step(func() error {
		_, err := disk.Rekey(ctx, d.w.pool, d.path(url), old, next)
		return err
	})
}

func (dyingDisks) WriteOwner(context.Context, string, []byte) error { return nil }
func (dyingDisks) Destroy(context.Context, string) error            { return nil }

func (d dyingDisks) Build(ctx context.Context, name fleet.ImageName, size int64,
	_ io.Reader) (fleet.Image, error) {
	path := "images/" + string(name)
	_, err := disk.Create(ctx, d.w.pool, path, disk.CreateOptions{Size: size})
	if err == nil {
		var a *disk.Disk
		if a, err = disk.Attach(ctx, d.w.pool, path, disk.AttachOptions{Generation: 1,
			Holder: "build"}); err == nil {
			_, err = a.Checkpoint(ctx, "v1")
			_ = a.Close(ctx)
		}
	}
	return fleet.Image{Name: name, DiskURL: poolURL + path, Checkpoint: "v1", SizeBytes: size}, err
}

// serve returns a server that has read the state, and does steps before it dies.
func (w *keyWorld) serve(keys *seal.Keyring, steps int) *Control {
	w.t.Helper()
	w.left = steps
	c, err := New(Config{FleetID: "f", StoreURL: poolURL}, Deps{Store: dyingState{w.state, w},
		Disks: dyingDisks{w}, Images: dyingDisks{w}, Keys: keys,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Refresh(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return c
}

const forEver = 1 << 30

func ringOf(t *testing.T, words ...string) *seal.Keyring {
	t.Helper()
	var keys [][32]byte
	for _, word := range words {
		keys = append(keys, [32]byte(bytes.Repeat([]byte(word), 32)[:32]))
	}
	r, err := seal.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newKeyWorld has an image, and machines a and b with encrypted disks, that are stopped.
func newKeyWorld(t *testing.T, keys *seal.Keyring) *keyWorld {
	w := &keyWorld{t: t, state: memstate.New(memstate.Config{}), pool: memblob.New()}
	c := w.serve(keys, forEver)
	if _, err := c.CreateImage(t.Context(), "base", 1<<20, nil); err != nil {
		t.Fatal(err)
	}
	// a worker that no machine is placed on: config must fit somewhere
	if _, err := c.Join(t.Context(), fleet.JoinRequest{Worker: "w1",
		Address: netip.MustParseAddr("fd00::1"), APIURL: "https://[fd00::1]:7600",
		Capacity: fleet.Resources{CPUMillis: 8000, MemoryMiB: 8192}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []fleet.MachineName{"a", "b"} {
		v, err := c.CreateMachine(t.Context(), fleet.CreateMachine{Name: name, App: "app",
			Network: "net", SkipStart: true, Config: fleet.MachineConfig{Image: "base",
				Resources: fleet.Resources{CPUMillis: 1000, MemoryMiB: 64}}})
		if err != nil {
			t.Fatal(err)
		}
		w.use(c, v.Machine, func(d *disk.Disk) error {
			return d.WriteAt(t.Context(), []byte("written by "+string(name)), 0)
		})
	}
	return w
}

// use attaches a machine's disk with the keys that its VM would be told now.
func (w *keyWorld) use(c *Control, m fleet.Machine, do func(*disk.Disk) error) {
	w.t.Helper()
	told := c.privateOf([]fleet.Assignment{
		assignment(m, fleet.WantRunning, 1, "", fleet.Placement{})})
	key, err := kek.NewRing(told[m.ID].DiskKeys...)
	if err != nil {
		w.t.Fatalf("machine %s is told no key: %v", m.Name, err)
	}
	d, err := disk.Attach(w.t.Context(), w.pool, "disks/"+string(m.ID),
		disk.AttachOptions{Generation: 1, Holder: "test", Key: key})
	if err != nil {
		w.t.Fatalf("the disk of machine %s, of key %d: %v", m.Name, m.DiskKey, err)
	}
	if err := do(d); err != nil {
		w.t.Fatal(err)
	}
	if err := d.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// check fails unless the VMs of both machines could read their disks.
func (w *keyWorld) check(c *Control) {
	w.t.Helper()
	for _, m := range c.records.Machines.All() {
		w.use(c, m.Val, func(d *disk.Disk) error {
			want := []byte("written by " + string(m.Val.Name))
			got := make([]byte, len(want))
			if err := d.ReadAt(w.t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("disk of %s reads %q: %w", m.Val.Name, got, err)
			}
			return nil
		})
	}
}

// TestARekeyDiesAnywhere: whatever step of a rekey a server dies before or in, machines can open
// their disks meanwhile, and the next server ends it. Then the older keys open nothing any more.
func TestARekeyDiesAnywhere(t *testing.T) {
	keys := ringOf(t, "fleet")
	for _, after := range []bool{false, true} {
		for steps := 1; ; steps++ {
			w := newKeyWorld(t, keys)
			w.after = after
			c := w.serve(keys, forEver)
			a := c.records.Machines.All()[0].Val
			old, err := c.diskKEK(a)
			if err != nil {
				t.Fatal(err)
			}
			c = w.serve(keys, steps)
			_, err = c.RekeyNetwork(t.Context(), "net")
			begun := err == nil
			for range 3 {
				c.Tick()
				c.Converge(t.Context())
			}
			survived := w.left > 0
			c = w.serve(keys, forEver)
			w.check(c)
			if !begun {
				if _, err := c.RekeyNetwork(t.Context(), "net"); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				c.Tick()
				c.Converge(t.Context())
			}
			w.check(c)
			n, _ := c.records.Networks.Get("net")
			if len(n.Val.Keys) != 1 || n.Val.Keys[0].Number != 2 {
				t.Fatalf("after %d steps (%v): the network has keys %+v", steps, after, n.Val.Keys)
			}
			if _, err := disk.Attach(t.Context(), w.pool, "disks/"+string(a.ID),
				disk.AttachOptions{Generation: 1, Holder: "test", Key: old}); !errs.Is(err,
				errs.Denied) {
				t.Fatalf("the older key still opens a disk: %v", err)
			}
			if survived {
				if steps < 5 {
					t.Fatalf("a rekey of two disks takes %d steps only", steps-1)
				}
				break
			}
		}
	}
}

// TestADiskKeyOpensOneDisk: what a VM is told opens no other machine's disk.
func TestADiskKeyOpensOneDisk(t *testing.T) {
	w := newKeyWorld(t, ringOf(t, "fleet"))
	c := w.serve(ringOf(t, "fleet"), forEver)
	all := c.records.Machines.All()
	given, err := c.DiskKey(t.Context(), string(all[0].Val.ID))
	if err != nil {
		t.Fatal(err)
	}
	key, err := kek.NewRing(given.Key)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		_, err := disk.Prepare(t.Context(), w.pool, "disks/"+string(all[i].Val.ID),
			disk.PrepareOptions{Key: key})
		if (err == nil) != want || err != nil && !errs.Is(err, errs.Denied) {
			t.Errorf("machine %s: %v", all[i].Val.Name, err)
		}
	}
	events, err := c.MachineEvents(t.Context(), string(all[0].Val.ID))
	if err != nil || events[len(events)-1].Event != eventDiskKey {
		t.Errorf("nobody notes that a key was handed out: %v", err)
	}
}

// TestTheFleetsKeyChanges: what is sealed is sealed anew under the newest key, wherever a server
// dies in that; and without a key that is needed no server starts.
func TestTheFleetsKeyChanges(t *testing.T) {
	ctx := t.Context()
	w := newKeyWorld(t, ringOf(t, "old"))
	c := w.serve(ringOf(t, "old"), forEver)
	if err := c.OpenSealed(ctx); err != nil {
		t.Fatal(err)
	}
	of := fleet.SecretScope{Network: "net", App: "app"}
	for _, name := range []string{"A", "B"} {
		if _, err := c.SetSecret(ctx, of, name, []byte("secret "+name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, keys := range map[string]*seal.Keyring{"no key": nil,
		"another key": ringOf(t, "new")} {
		err := w.serve(keys, forEver).OpenSealed(ctx)
		if !errs.Is(err, errs.Denied) || !strings.Contains(errs.RemedyOf(err), "--fleet-key-file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for steps := 1; ; steps++ {
		err := w.serve(ringOf(t, "new", "old"), steps).OpenSealed(ctx)
		if err == nil {
			break
		}
		if steps > 10 {
			t.Fatal(err)
		}
		w.check(w.serve(ringOf(t, "new", "old"), forEver))
	}
	c = w.serve(ringOf(t, "new"), forEver)
	if err := c.OpenSealed(ctx); err != nil {
		t.Fatalf("the older key is still needed: %v", err)
	}
	w.check(c)
	open := c.openSecrets([]fleet.Assignment{{Network: "net", App: "app"}})
	if got := open[of]["B"]; got != "secret B" {
		t.Errorf("the secret is %q", got)
	}
}

// TestWhatIsSealedStaysWhereItIs: one who can write the state, and has no key, can't give a machine
// another's secret.
func TestWhatIsSealedStaysWhereItIs(t *testing.T) {
	ctx, keys := t.Context(), ringOf(t, "fleet")
	w := newKeyWorld(t, keys)
	c := w.serve(keys, forEver)
	thief := fleet.SecretScope{Network: "net", App: "thief"}
	for _, of := range []fleet.SecretScope{{Network: "net", App: "app"}, thief} {
		if _, err := c.SetSecret(ctx, of, "TOKEN", []byte("secret of "+of.App)); err != nil {
			t.Fatal(err)
		}
	}
	mine, err := w.state.Get(ctx, "fleet/secrets/net/app/TOKEN")
	if err != nil {
		t.Fatal(err)
	}
	moved := bytes.ReplaceAll(mine.Value, []byte(`"app":"app"`), []byte(`"app":"thief"`))
	if bytes.Equal(moved, mine.Value) {
		t.Fatalf("the record is %s", mine.Value)
	}
	theirs, err := w.state.Get(ctx, "fleet/secrets/net/thief/TOKEN")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.state.Commit(ctx, state.Txn{
		If:   []state.Cond{{Key: theirs.Key, ModRevision: theirs.ModRevision}},
		Then: []state.Op{{Key: theirs.Key, Value: moved}}}); err != nil {
		t.Fatal(err)
	}
	c = w.serve(keys, forEver)
	open := c.openSecrets([]fleet.Assignment{{Network: "net", App: "thief"}})
	if got := open[thief]; len(got) > 0 {
		t.Errorf("it got %v", got)
	}
	if err := c.OpenSealed(ctx); !errs.Is(err, errs.Denied) {
		t.Errorf("a server starts on it: %v", err)
	}
}
