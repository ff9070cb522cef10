package gateway_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayblob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	template = "disks/img-base-01"
	mine     = "disks/0100000000000a"
	other    = "disks/0100000000000b"
	token    = "token-of-mine"
)

// rig is a pool with a template, two disks forked from it, and a gateway for the first of them.
type rig struct {
	t     *testing.T
	store *memblob.Store
	gw    *gateway.Gateway
	url   string
	end   func() // of the gateway, and returns when it has ended
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: memblob.New()}
	ctx := t.Context()
	if _, err := disk.Create(ctx, r.store, template,
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Attach(ctx, r.store, template,
		disk.AttachOptions{Generation: 1, Holder: "builder"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(ctx, []byte("from the template"), 8192); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "base"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, child := range []string{mine, other} {
		if _, err := disk.Fork(ctx, r.store, template, "base", child,
			disk.ForkOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Put(ctx, child+"/machine.json",
			[]byte(`{"env":{"SECRET":"x"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.store.Put(ctx, template+"/machine.json", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	r.serve()
	return r
}

func (r *rig) serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	r.gw = gateway.New(gateway.Config{
		Store: r.store, Logger: slog.New(slog.DiscardHandler),
		Listen: func(context.Context) (net.Listener, error) { return l, nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	gw := r.gw // r may get another one
	go func() { over <- gw.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			r.t.Errorf("gateway ended with %v", err)
		}
	})
	r.t.Cleanup(r.end)
}

func (r *rig) grant(g fleet.Generation, writable bool) {
	r.t.Helper()
	identity, err := gateway.ReadIdentity(r.t.Context(), r.store, mine)
	if err != nil {
		r.t.Fatal(err)
	}
	r.gw.Grant(gateway.Access{Token: token, DiskPath: mine, Generation: g, Writable: writable,
		Disk: identity})
}

func (r *rig) client(tok string) *gatewayblob.Store {
	r.t.Helper()
	c, err := gatewayblob.New(gatewayblob.Config{BaseURL: r.url, Token: tok,
		Timeout: 2 * time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// The real engine works through the gateway: attach, read what the template has, write, checkpoint,
// close.
func TestDiskWorksThroughTheGateway(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	ctx := t.Context()
	d, err := disk.Attach(ctx, r.client(token), mine,
		disk.AttachOptions{Generation: 3, Holder: "vm1"})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 17)
	if err := d.ReadAt(ctx, buf, 8192); err != nil || string(buf) != "from the template" {
		t.Fatalf("%q, %v", buf, err)
	}
	if err := d.WriteAt(ctx, []byte("mine"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	c := r.gw.Counts()
	if c.Refused != 0 || c.Reads == 0 || c.Writes < 4 || c.BytesRead == 0 || c.BytesWritten == 0 {
		t.Fatalf("counts are %+v", c)
	}
	// After a crash, too: replay lists and reads logs, and fences.
	for g := fleet.Generation(4); g < 6; g++ {
		r.grant(g, true)
		r.gw.Revoke()
		r.grant(g, true)
		d, err := disk.Attach(ctx, r.client(token), mine,
			disk.AttachOptions{Generation: uint64(g), Holder: "vm"})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(ctx, []byte("again"), 4096); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		d.Abandon()
	}
	if got := r.gw.Counts().Refused; got != 0 {
		t.Fatalf("%d requests of the engine were refused", got)
	}
}

func TestWhatAWritableTokenIsRefused(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	c, ctx := r.client(token), t.Context()
	get := func(key string) error { _, err := c.Get(ctx, key, blob.All()); return err }
	absent := func(key string) error { _, err := c.PutIfAbsent(ctx, key, []byte("x")); return err }
	put := func(key string) error { _, err := c.Put(ctx, key, []byte("x")); return err }
	match := func(key string) error {
		_, err := c.PutIfMatch(ctx, key, []byte("x"), r.etag(mine+"/head"))
		return err
	}
	list := func(prefix string) error {
		return c.List(ctx, prefix, "", func(blob.Entry) bool { return true })
	}
	for what, err := range map[string]error{
		"read another disk's head":     get(other + "/head"),
		"read another disk's document": get(other + "/machine.json"),
		"read another disk's log": get(
			other + "/log/0000000000000001/0000000000000001"),
		"read the template's head":     get(template + "/head"),
		"read the template's document": get(template + "/machine.json"),
		"read who else forked it": get(
			template + "/refs/" + "disks%2F0100000000000b"),
		"read outside of disks":                 get("fleet.json"),
		"read a disk whose name begins as mine": get(mine + "b/head"),
		"list everything":                       list(""),
		"list all disks":                        list("disks/"),
		"list by a part of my name":             list(mine),
		"list another disk":                     list(other + "/"),
		"list the template":                     list(template + "/"),
		"list upwards":                          list(mine + "/../"),
		"write into another disk": absent(
			other + "/log/0000000000000009/0000000000000001"),
		"write into the template": absent(
			template + "/log/0000000000000009/0000000000000001"),
		"write my document":                  absent(mine + "/machine.json"),
		"write a reference of a fork":        absent(mine + "/refs/x"),
		"write where no object of a disk is": absent(mine + "/x"),
		"write a folder":                     absent(mine + "/log"),
		"make a second head":                 absent(mine + "/head"),
		"overwrite my head":                  put(mine + "/head"),
		"overwrite a log object": put(
			mine + "/log/0000000000000001/0000000000000001"),
		"overwrite another disk's head": put(other + "/head"),
		"replace my document":           match(mine + "/machine.json"),
		"replace a log object": match(
			mine + "/log/0000000000000001/0000000000000001"),
		"replace another disk's head": match(other + "/head"),
		"replace my head by nonsense": match(mine + "/head"),
		"delete my log": c.Delete(ctx,
			mine+"/log/0000000000000001/0000000000000001"),
		"delete my head":             c.Delete(ctx, mine+"/head"),
		"delete another disk's head": c.Delete(ctx, other+"/head"),
	} {
		// A key that no store can hold is refused as such, before anybody asks whose it is.
		if !errs.Is(err, errs.Denied) && !(what == "list upwards" && errs.Is(err, errs.Invalid)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Get(ctx, mine+"/machine.json", blob.All()); err != nil {
		t.Errorf("read my own document: %v", err)
	}
	if err := list(mine + "/log/"); err != nil {
		t.Errorf("list my own logs: %v", err)
	}
}

func (r *rig) etag(key string) blob.ETag {
	r.t.Helper()
	o, err := r.store.Get(r.t.Context(), key, blob.All())
	if err != nil {
		r.t.Fatal(err)
	}
	return o.ETag
}

func TestHeadKeepsItsIdentityAndItsGeneration(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	c := r.client(token)
	write := func(change func(*format.Head)) error {
		o, err := r.store.Get(t.Context(), mine+"/head", blob.All())
		if err != nil {
			t.Fatal(err)
		}
		h, err := format.DecodeHead(o.Data)
		if err != nil {
			t.Fatal(err)
		}
		h.Generation, h.Epoch, h.Nonce = 3, h.Epoch+1, "01J0000000000000000000000A"
		change(h)
		body, err := format.Encode(h)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.PutIfMatch(t.Context(), mine+"/head", body, o.ETag)
		return err
	}
	for what, change := range map[string]func(*format.Head){
		"id":               func(h *format.Head) { h.ID = "0100000000000b" },
		"uid":              func(h *format.Head) { h.UID = "01J0000000000000000000000B" },
		"size":             func(h *format.Head) { h.Size *= 2 },
		"older generation": func(h *format.Head) { h.Generation = 2 },
		"newer generation": func(h *format.Head) { h.Generation = 4 },
		"wider lineage": func(h *format.Head) {
			h.Lineage = append(h.Lineage, format.Ancestor{Path: other, UID: h.UID})
		},
		"shorter lineage": func(h *format.Head) {
			h.Lineage, h.Root,
				h.Parent = h.Lineage[:1], nil, nil
		},
		"other parent": func(h *format.Head) { h.Lineage[1].Path = other },
	} {
		if err := write(change); !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := write(func(*format.Head) {}); err != nil {
		t.Fatalf("an honest head was refused: %v", err)
	}
}

func TestReadOnlyTokenWritesNothing(t *testing.T) {
	r := newRig(t)
	r.grant(0, false)
	c, ctx := r.client(token), t.Context()
	if _, err := disk.Prepare(ctx, c, mine, disk.PrepareOptions{}); err != nil {
		t.Fatalf("prepare: %v", err)
	}
	if _, err := c.PutIfAbsent(ctx, mine+"/log/0000000000000001/0000000000000001",
		[]byte("x")); !errs.Is(err, errs.Denied) {
		t.Errorf("wrote a log object: %v", err)
	}
	if _, err := disk.Attach(ctx, c, mine,
		disk.AttachOptions{Generation: 3, Holder: "vm"}); !errs.Is(err, errs.Denied) {
		t.Errorf("attached: %v", err)
	}
}

func TestTokensDieAtOnce(t *testing.T) {
	r := newRig(t)
	c, ctx := r.client(token), t.Context()
	read := func(c *gatewayblob.Store) error {
		_,
			err := c.Get(ctx, mine+"/head", blob.All())
		return err
	}
	if err := read(c); !errs.Is(err, errs.Denied) {
		t.Fatalf("before any grant: %v", err)
	}
	r.grant(3, true)
	if err := read(c); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "x", token + "x", token[:len(token)-1]} {
		if err := read(r.client(bad)); !errs.Is(err, errs.Denied) {
			t.Errorf("token %q: %v", bad, err)
		}
	}
	identity, err := gateway.ReadIdentity(ctx, r.store, mine)
	if err != nil {
		t.Fatal(err)
	}
	r.gw.Grant(gateway.Access{Token: "next", DiskPath: mine, Generation: 4, Writable: true,
		Disk: identity})
	if err := read(c); !errs.Is(err, errs.Denied) {
		t.Fatalf("an earlier token still works: %v", err)
	}
	r.gw.Revoke()
	if err := read(r.client("next")); !errs.Is(err, errs.Denied) {
		t.Fatalf("a revoked token still works: %v", err)
	}
	if got := r.gw.Counts().Refused; got != 7 {
		t.Errorf("%d refusals counted, want 7", got)
	}
	r.gw.Grant(gateway.Access{DiskPath: mine, Generation: 4, Disk: identity})
	if err := read(r.client("")); !errs.Is(err, errs.Denied) {
		t.Fatalf("a grant without a token lets in whoever has none: %v", err)
	}
}

func TestIdentityOfWhatIsNoDisk(t *testing.T) {
	r := newRig(t)
	if _, err := gateway.ReadIdentity(t.Context(), r.store, "disks/none"); !errs.Is(err,
		errs.NotFound) || errs.RemedyOf(err) == "" {
		t.Errorf("no disk: %v", err)
	}
	if _, err := r.store.Put(t.Context(), "disks/bad/head", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.ReadIdentity(t.Context(), r.store, "disks/bad"); err == nil {
		t.Error("nonsense was taken for a head")
	}
}

// TestAGatewayThatEndsRefusesNobody: a worker is restarted while its VM asks for much. The VM is
// never told that its token isn't known, which would be the end of its machine.
func TestAGatewayThatEndsRefusesNobody(t *testing.T) {
	r := newRig(t)
	for range 20 {
		r.end()
		r.serve()
		r.grant(1, true)
		var g errgroup.Group
		for range 16 {
			c := r.client(token)
			g.Go(func() error {
				for {
					_, err := c.Get(t.Context(), mine+"/head", blob.Range{})
					if err != nil {
						return err
					}
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		r.end()
		if err := g.Wait(); errs.Is(err, errs.Denied) {
			t.Fatalf("a VM with access is told: %v", err)
		}
	}
}
