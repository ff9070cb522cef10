package disk

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// pin is a leased pin that this process holds. A collector takes it for dead when nobody has
// written it for twice its lease, by the collector's own observation: no two clocks are compared.
// Here it counts as lost a whole lease earlier, so that nothing is read that may be gone.
type pin struct {
	store *store.Client
	key   string
	lease time.Duration

	mu   sync.Mutex
	doc  format.Pin
	etag blob.ETag
	sent []string  // nonces of writes that may still arrive
	held time.Time // when its last write that succeeded began
	gone error     // the pin was removed
}

// takePin pins everything of a disk. What is in the store and is read after it stays there while
// the pin is valid.
func takePin(
	ctx context.Context, client *store.Client, path, holder string, lease time.Duration,
) (*pin, error) {
	t := now()
	p := &pin{store: client, lease: lease, held: time.Now(),
		doc: format.Pin{Version: format.Version, ID: leasePrefix + strings.ToLower(newNonce()),
			Nonce:  newNonce(),
			Holder: holder, LeaseMS: lease.Milliseconds(), All: true, Created: t, Renewed: t}}
	p.key = pinKey(path, p.doc.ID)
	body, err := format.Encode(&p.doc)
	if err != nil {
		return nil, err
	}
	if err := client.PutNew(ctx, p.key, body); err != nil {
		e := errs.Wrap(errs.KindOf(err), err, "pin disk %s", path)
		if errs.Is(err, errs.Denied) {
			e = e.WithRemedy("allow writes below %s; or read with --no-pin, if no collector runs",
				format.KeyPin.Folder(path))
		}
		return nil, e
	}
	if _, err := client.Shown(ctx, p.key, body); err != nil {
		p.release(ctx)
		return nil, errs.Wrap(errs.KindOf(err), err, "pin disk %s", path)
	}
	return p, nil
}

// narrow makes the pin one of a single map, and renews it. An empty map needs nothing.
func (p *pin) narrow(ctx context.Context, m *format.PinnedMap) error {
	if m.Root == nil {
		m = nil
	}
	return p.write(ctx, func(doc *format.Pin) { doc.All, doc.Map = false, m })
}

func (p *pin) renew(ctx context.Context) error { return p.write(ctx, func(*format.Pin) {}) }

// write changes the pin by compare-and-swap: one that a collector has removed must not come back.
// One caller at a time.
func (p *pin) write(ctx context.Context, change func(*format.Pin)) error {
	// A collector that has taken it for dead may be at work, and the pin still be there.
	if err := p.valid(); err != nil {
		return err
	}
	p.mu.Lock()
	next, etag := p.doc, p.etag
	p.mu.Unlock()
	begin := time.Now()
	change(&next)
	next.Nonce, next.Renewed = newNonce(), now()
	p.mu.Lock()
	p.sent = append(p.sent, next.Nonce)
	p.mu.Unlock()
	body, err := format.Encode(&next)
	if err != nil {
		return err
	}
	if err = p.store.RetryFor(ctx, p.lease/4, func(ctx context.Context) error {
		return p.swap(ctx, body, &next, &etag)
	}); err != nil {
		err = errs.Wrap(errs.KindOf(err), err, "renew pin %s", p.key)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.etag = etag
	switch {
	case err == nil:
		p.doc, p.held, p.sent = next, begin, nil // what was sent before can't arrive any more
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Conflict):
		p.gone = errs.Wrap(errs.Conflict, err, "pin %s was taken away", p.key).
			WithRemedy("open the disk again")
	}
	return err
}

// swap makes one attempt. etag is of what is stored, as far as that is known.
func (p *pin) swap(ctx context.Context, body []byte, next *format.Pin, etag *blob.ETag) error {
	if *etag == "" {
		if done, err := p.look(ctx, next, etag); done || err != nil {
			return err
		}
	}
	tag, err := p.store.TrySwap(ctx, p.key, body, *etag)
	if err == nil {
		*etag = tag
		return nil
	}
	if !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.Unavailable) {
		return err
	}
	done, lerr := p.look(ctx, next, etag)
	if done || lerr != nil {
		return lerr
	}
	// unchanged so far, or an older write of ours: again
	return errs.Wrap(errs.Unavailable, err, "write %s", p.key)
}

// look reads the pin's ETag, and reports whether next is stored. Conflict: somebody else wrote the
// pin.
func (p *pin) look(ctx context.Context, next *format.Pin, etag *blob.ETag) (bool, error) {
	obj, err := p.store.TryGet(ctx, p.key, blob.All())
	if err != nil {
		return false, err
	}
	doc, err := format.DecodePin(obj.Data)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if doc.Nonce != p.doc.Nonce && !slices.Contains(p.sent, doc.Nonce) {
		return false, errs.New(errs.Conflict, "somebody else wrote %s", p.key)
	}
	*etag = obj.ETag
	return doc.Nonce == next.Nonce, nil
}

// valid returns nil while a collector must heed the pin.
func (p *pin) valid() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return p.gone
	}
	age := elapsed(p.held)
	if age < p.lease {
		return nil
	}
	return errs.New(errs.Conflict,
		"pin %s was last renewed %v ago, and lasts %v: what it held may be collected",
		p.key, age.Round(time.Second), p.lease).
		WithRemedy("check the way to the store, and open the disk again")
}

// elapsed returns the time since t by whichever clock says more. One stands still while a host
// sleeps, and the other may be set.
func elapsed(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// release removes the pin. One that can't be removed ends with its lease.
func (p *pin) release(ctx context.Context) {
	_ = p.store.Remove(ctx, p.key)
}

// keep renews the pin until ctx ends or it is lost.
func (p *pin) keep(ctx context.Context) {
	for {
		if backoff.Sleep(ctx, p.lease/3) != nil {
			return
		}
		if err := p.renew(ctx); err != nil && p.valid() != nil {
			return
		}
	}
}

// PinMap keeps what a disk refers to from being collected until Unpin, whatever becomes of the disk
// and its checkpoints. It pins the newest map, or a checkpoint's if one is named. Whoever knows the
// pin's map can read it; it can't be forked or restored. Errors: NotFound, Exists (the name is
// taken), Invalid.
func PinMap(
	ctx context.Context, store blob.Store, path, name, checkpoint, holder string,
) (*format.Pin, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := checkPinName(name); err != nil {
		return nil, err
	}
	client := oneShot(store)
	if _, _, err := mapOf(ctx, client, path, checkpoint); err != nil { // before anything is written
		return nil, err
	}
	p, err := takePin(ctx, client, path, holder, pinLease)
	if err != nil {
		return nil, err
	}
	defer p.release(ctx)
	m, _, err := mapOf(ctx, client, path, checkpoint)
	if err != nil {
		return nil, err
	}
	if m.Root == nil {
		m = nil // an empty map needs nothing
	}
	t := now()
	doc := &format.Pin{Version: format.Version, ID: name, Nonce: newNonce(), Holder: holder, Map: m,
		Created: t, Renewed: t}
	body, err := format.Encode(doc)
	if err != nil {
		return nil, err
	}
	if err := p.valid(); err != nil {
		return nil, err
	}
	err = client.PutNew(ctx, pinKey(path, name), body)
	if errs.Is(err, errs.Conflict) {
		return nil, errs.Wrap(errs.Exists, err, "disk %s has a pin %q", path, name).
			WithRemedy("choose another name, or unpin it first")
	}
	return doc, err
}

// mapOf returns a disk's newest map, or a checkpoint's if one is named, and what opens its keys.
func mapOf(
	ctx context.Context, client *store.Client, path, checkpoint string,
) (*format.PinnedMap, func(context.Context, KEK) (format.Keys, error), error) {
	m := &format.PinnedMap{Checkpoint: checkpoint}
	if checkpoint == "" {
		h, _, err := client.LoadHead(ctx, path)
		if err != nil {
			return nil, nil, err
		}
		m.Size, m.Root, m.Lineage = h.Size, h.Root, h.Lineage
		return m, func(ctx context.Context, key KEK) (format.Keys, error) {
			return Unlock(ctx, h, key)
		}, nil
	}
	c, err := loadCheckpoint(ctx, client, path, checkpoint)
	if err != nil {
		return nil, nil, err
	}
	m.Size, m.Root, m.Lineage = c.Size, c.Root, c.Lineage
	return m, func(ctx context.Context, key KEK) (format.Keys, error) {
		return checkpointKeys(ctx, client, c, path, key)
	}, nil
}

// Unpin removes a pin by name. NotFound lists those that there are. A reader whose pin is removed
// stops.
func Unpin(ctx context.Context, store blob.Store, path, name string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if err := CheckName(name); err != nil {
		return err
	}
	client := oneShot(store)
	pins, err := client.Names(ctx, format.KeyPin.Folder(path))
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "list pins of %s", path)
	}
	if !slices.Contains(pins, name) {
		e := errs.New(errs.NotFound, "disk %s has no pin %q", path, name)
		if len(pins) == 0 {
			return e.WithRemedy("it has none")
		}
		return e.WithRemedy("use one of: %s", strings.Join(pins, ", "))
	}
	if err := client.Remove(ctx, pinKey(path, name)); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "remove pin %s of %s", name, path)
	}
	return nil
}

// ListPins returns a disk's pins by name, those of readers too.
func ListPins(ctx context.Context, store blob.Store, path string) ([]*format.Pin, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	client := oneShot(store)
	names, err := client.Names(ctx, format.KeyPin.Folder(path))
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "list pins of %s", path)
	}
	var pins []*format.Pin
	for _, name := range names {
		obj, err := client.Get(ctx, pinKey(path, name), blob.All())
		if errs.Is(err, errs.NotFound) {
			continue // a reader has just ended
		}
		if err != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "read pin %s of %s", name, path)
		}
		p, err := format.DecodePin(obj.Data)
		if err != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "pin %s of %s", name, path)
		}
		pins = append(pins, p)
	}
	return pins, nil
}
