package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// written attaches the disk over the gateway and writes objects of every kind.
func (r *rig) written() {
	r.t.Helper()
	ctx := r.t.Context()
	d, err := disk.Attach(ctx, r.client(token), mine,
		disk.AttachOptions{Generation: 3, Holder: "vm1"})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := d.WriteAt(ctx, []byte("mine"), 0); err != nil {
		r.t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "c1"); err != nil {
		r.t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// TestWhatHasAnotherFormIsRefused takes objects that the engine has written, changes them or their
// keys, and tries to store them.
func TestWhatHasAnotherFormIsRefused(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	r.written()
	c, ctx := r.client(token), t.Context()
	var keys []string
	if err := r.store.List(ctx, mine+"/", "", func(e blob.Entry) bool {
		keys = append(keys, e.Key)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	body := func(part string) (string, []byte) {
		at := slices.IndexFunc(keys, func(key string) bool { return strings.Contains(key, part) })
		if at < 0 {
			t.Fatalf("the engine wrote no %s: %q", part, keys)
		}
		o, err := r.store.Get(ctx, keys[at], blob.All())
		if err != nil {
			t.Fatal(err)
		}
		return keys[at], o.Data
	}
	refused := func(what, key string, b []byte) {
		t.Helper()
		_, err := c.PutIfAbsent(ctx, key, b)
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "/") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := r.store.Get(ctx, key, blob.All()); !errs.Is(err, errs.NotFound) {
			t.Errorf("%s: it was stored: %v", what, err)
		}
	}
	log, logBody := body("/log/")
	root, rootBody := body("/root")
	_, pagesBody := body("/pages")
	point, pointBody := body("/ckpt/")
	elsewhere := func(key, from, to string) string { return strings.Replace(key, from, to, 1) }
	other := mine + "/log/0000000000000001/0000000000000077"
	refused("noise as a log object", other, []byte("noise"))
	refused("a log object in another place", other, logBody)
	refused("a log object that is cut", elsewhere(log, "/log/", "/log/x"), logBody)
	refused("a log object as a segment", mine+"/seg/0000000000000001-00000001", logBody)
	if _, err := c.PutIfAbsent(ctx, log, append(slices.Clone(logBody), 0)); !errs.Is(err,
		errs.Invalid) || !strings.Contains(err.Error(), "its header says") {
		t.Errorf("a log object that is longer than its header says: %v", err)
	}
	refused("noise as a root", mine+"/map/0000000000000001-00000077/root", []byte("noise"))
	refused("a root in another place", mine+"/map/0000000000000001-00000077/root", rootBody)
	refused("a root as pages", mine+"/map/0000000000000001-00000077/pages", rootBody)
	refused("pages as a root", mine+"/map/0000000000000001-00000077/root", pagesBody)
	refused("a map's object of another name", root+"s", rootBody)
	refused("noise as a checkpoint", mine+"/ckpt/evil", []byte("noise"))
	refused("a checkpoint of another name", mine+"/ckpt/evil", pointBody)
	refused("a newer checkpoint", mine+"/ckpt/evil", []byte(`{"version":99}`))
	refused("a huge checkpoint", mine+"/ckpt/evil", make([]byte, 1<<20))
	refused("noise as a boot trace", mine+"/boot/0000000000000009", []byte("noise"))
	refused("noise as a checkpoint's boot trace", mine+"/boot/of/evil", []byte("noise"))
	refused("an odd key", mine+"/log/x", logBody)
	for what, change := range map[string]func(*format.Checkpoint){
		"foreign lineage":  func(c *format.Checkpoint) { c.Lineage[1].Path = other },
		"shorter lineage":  func(c *format.Checkpoint) { c.Lineage, c.Root = c.Lineage[:1], nil },
		"another disk":     func(c *format.Checkpoint) { c.UID = "01J0000000000000000000000B" },
		"a larger disk":    func(c *format.Checkpoint) { c.Size *= 2 },
		"a map of nothing": func(c *format.Checkpoint) { c.Root.Lineage = 7 },
	} {
		p, err := format.DecodeCheckpoint(pointBody)
		if err != nil {
			t.Fatal(err)
		}
		p.Name = "evil"
		change(p)
		b, err := format.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		refused(what, mine+"/ckpt/evil", b)
	}
	// What was written once has the right form, and is only refused because it is there.
	if _, err := c.PutIfAbsent(ctx, point, pointBody); !errs.Is(err, errs.Conflict) {
		t.Errorf("the checkpoint again: %v", err)
	}
}

// TestHeadKeepsItsOrigin: the collector of a pool writes into the parent that a head names, and
// opens its log store.
func TestHeadKeepsItsOrigin(t *testing.T) {
	r := newRig(t)
	r.grant(3, true)
	r.written()
	c, ctx := r.client(token), t.Context()
	write := func(change func(*format.Head)) error {
		o, err := r.store.Get(ctx, mine+"/head", blob.All())
		if err != nil {
			t.Fatal(err)
		}
		h, err := format.DecodeHead(o.Data)
		if err != nil {
			t.Fatal(err)
		}
		h.Nonce = "01J0000000000000000000000A"
		change(h)
		b, err := format.Encode(h)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.PutIfMatch(ctx, mine+"/head", b, o.ETag)
		return err
	}
	for what, change := range map[string]func(*format.Head){
		"another parent": func(h *format.Head) { h.Parent.Path = other },
		"no parent":      func(h *format.Head) { h.Parent = nil },
		"a log store": func(h *format.Head) {
			h.SetLogStore(&format.LogStore{URL: "file:///etc", Binding: h.UID})
		},
		"a large head": func(h *format.Head) { h.Holder = strings.Repeat("x", 1<<20) },
	} {
		if err := write(change); !errs.Is(err, errs.Denied) && !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := write(func(*format.Head) {}); err != nil {
		t.Fatalf("an honest head was refused: %v", err)
	}
	// A record of an older release doesn't tell.
	identity, err := gateway.ReadIdentity(ctx, r.store, mine)
	if err != nil {
		t.Fatal(err)
	}
	identity.Origin = nil
	r.gw.Grant(gateway.Access{Token: token + "2", DiskPath: mine, Generation: 3, Writable: true,
		Disk: identity})
	c = r.client(token + "2")
	if err := write(func(*format.Head) {}); err != nil {
		t.Errorf("with an older record: %v", err)
	}
}
