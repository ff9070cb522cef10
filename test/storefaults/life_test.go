package storefaults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	diskPath, childPath, victimPath = "disks/a", "disks/child", "disks/victim"

	size    = 1 << 20
	patient = 3 * time.Minute // for what has to happen at some time
)

// life is one disk's, behind a proxy.
type life struct {
	t      *testing.T
	ctx    context.Context
	kind   s3faulttest.Kind
	proxy  *s3faulttest.Proxy
	real   blob.Store // the server itself
	via    *heard     // through the proxy
	now    time.Time
	gen    uint64
	d      *disk.Disk
	rng    *rand.Rand
	want   []byte // what was acknowledged
	marked []byte // of that, what the checkpoint has
	took   map[string]string
}

func newLife(t *testing.T, server *versitygwtest.Server, k s3faulttest.Kind) *life {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	t.Cleanup(cancel)
	l := &life{t: t, ctx: ctx, kind: k, now: time.Now(), rng: rand.New(rand.NewPCG(1, 2)),
		want: make([]byte, size), took: map[string]string{}}
	l.proxy = s3faulttest.Start(t, strings.TrimPrefix(server.Endpoint, "http://"))
	prefix := versitygwtest.Prefix()
	open := func(endpoint string) blob.Store {
		s, err := s3blob.New(s3blob.Config{
			Bucket: server.Bucket, Prefix: prefix, Endpoint: endpoint, Region: "us-east-1",
			PathStyle: true,
			AccessKey: versitygwtest.AccessKey, SecretKey: versitygwtest.SecretKey,
		})
		l.must(err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	l.real, l.via = open(server.Endpoint), &heard{Store: open(l.proxy.Endpoint)}
	return l
}

func (l *life) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// all is the whole life.
func (l *life) all() {
	l.stage("create", nil, l.create)
	l.stage("attach", nil, l.attach)
	l.stage("flush", nil, l.flush)
	l.stage("checkpoint", nil, l.checkpoint)
	l.stage("fork", nil, l.fork)
	l.must(l.d.Err()) // it is the attachment that all of that happened to
	l.change()
	l.must(l.flush(l.ctx))
	l.must(l.crash())
	l.must(l.attach(l.ctx))
	l.change()
	l.stage("close", nil, func(ctx context.Context) error { return l.d.Close(ctx) })
	l.must(l.intact())
	l.victim()
	l.stage("destroy", nil, func(ctx context.Context) error {
		return disk.Destroy(ctx, l.via,
			victimPath, disk.DestroyOptions{})
	})
	// of a listing that hides them, or a deletion that lied
	if left := l.nothingBelow(victimPath + "/"); !l.kind.Silent {
		l.must(left)
	}
	l.stage("mark", nil, l.collect)
	l.stage("sweep", nil, l.collect)
	l.must(l.intact())
}

// stage does something while the store answers falsely, until it has done so twice or for a while,
// and then is well. What fails by then is tried once more.
func (l *life) stage(name string, match func(*http.Request) bool, do func(context.Context) error) {
	l.t.Helper()
	l.via.reset()
	l.proxy.Break(l.kind, match)
	done := make(chan error, 1)
	var g errgroup.Group
	g.Go(func() error {
		done <- do(l.ctx)
		return nil
	})
	err, over := l.whileBroken(done)
	hits := l.proxy.Hits()
	l.proxy.Heal()
	if !over {
		select {
		case err = <-done:
		case <-time.After(patient):
			l.t.Fatalf("%s does not go on, though the store is well", name)
		}
	}
	_ = g.Wait() // done told
	l.judge(name, hits, err, do)
}

func (l *life) whileBroken(done <-chan error) (error, bool) {
	var since time.Time
	for {
		select {
		case err := <-done:
			return err, true
		case <-time.After(2 * time.Millisecond):
		}
		hits := l.proxy.Hits()
		if hits > 0 && since.IsZero() {
			since = time.Now()
		}
		if hits > 1 || hits > 0 && time.Since(since) > 200*time.Millisecond {
			return nil, false
		}
	}
}

func (l *life) judge(name string, hits int, err error, do func(context.Context) error) {
	l.t.Helper()
	l.took[name] = "waited"
	switch {
	case hits == 0:
		l.took[name] = "."
	case l.kind.Harmless || l.kind.Silent:
		l.took[name] = "works"
	case !(l.kind.Unheard && len(l.via.all()) == 0) && !l.via.soonNames(l.kind.Says):
		l.t.Errorf("%s: nothing that was said names %q: %v", name, l.kind.Says, l.via.all())
	}
	if err == nil {
		return
	}
	l.took[name] = "told"
	if hits == 0 || l.kind.Harmless || !strings.Contains(err.Error(), l.kind.Says) {
		l.t.Errorf("%s: the error doesn't name %q: %v", name, l.kind.Says, err)
	}
	if kind := errs.KindOf(err); kind == errs.Corrupt || kind == errs.Fenced ||
		kind == errs.Internal || kind == errs.Invalid {
		l.t.Errorf("%s: kind %q: %v", name, kind, err)
	}
	if err := do(l.ctx); err != nil && !errs.Is(err, errs.Exists) {
		l.t.Fatalf("%s, tried again when the store is well: %v", name, err)
	}
}

func (l *life) create(ctx context.Context) error {
	_, err := disk.Create(ctx, l.via, diskPath, disk.CreateOptions{Size: size})
	return err
}

func (l *life) attach(ctx context.Context) (err error) {
	l.gen++
	o := disk.AttachOptions{Generation: l.gen, Holder: fmt.Sprint("vm-", l.gen)}
	o.BootWindow, o.StallTimeout = -1, -1
	if l.d, err = disk.Attach(ctx, l.via, diskPath, o); err == nil {
		l.t.Cleanup(l.d.Abandon)
	}
	return err
}

// change writes what is not yet in the store.
func (l *life) change() {
	l.t.Helper()
	for range 4 {
		off := l.rng.Int64N(size/disk.BlockSize-8) * disk.BlockSize
		p := l.want[off : off+8*disk.BlockSize]
		for i := range p {
			p[i] = byte(l.rng.Uint32())
		}
		l.must(l.d.WriteAt(l.ctx, p, off))
	}
}

func (l *life) flush(ctx context.Context) error {
	l.change()
	return l.d.Flush(ctx)
}

func (l *life) checkpoint(ctx context.Context) error {
	_, err := l.d.Checkpoint(ctx, "one")
	l.marked = bytes.Clone(l.want)
	return err
}

func (l *life) fork(ctx context.Context) error {
	_, err := disk.Fork(ctx, l.via, diskPath, "one", childPath, disk.ForkOptions{})
	return err
}

// crash ends the attachment without a word, and looks at what the real store has.
func (l *life) crash() error {
	l.d.Abandon()
	l.gen++
	o := disk.AttachOptions{Generation: l.gen, Holder: fmt.Sprint("vm-", l.gen)}
	d, err := disk.Attach(l.ctx, l.real, diskPath, o)
	if err != nil {
		return err
	}
	defer d.Abandon()
	return has(l.ctx, d, l.want)
}

// intact looks at all that lives, in the real store.
func (l *life) intact() error {
	var all error
	for _, what := range []struct {
		path, checkpoint string
		want             []byte
	}{{diskPath, "", l.want}, {diskPath, "one", l.marked}, {childPath, "", l.marked}} {
		r, err := disk.OpenReadOnly(l.ctx, l.real, what.path, what.checkpoint,
			disk.ReadOnlyOptions{})
		if err == nil {
			err = errors.Join(has(l.ctx, r, what.want), r.Close())
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("%s %s: %w", what.path, what.checkpoint, err))
		}
	}
	for _, path := range []string{diskPath, childPath} {
		report, err := fsck.Check(l.ctx, l.real, path, fsck.Options{Data: true})
		if err == nil && report.DamageCount > 0 {
			err = fmt.Errorf("fsck of %s: %+v", path, report.Damage)
		}
		all = errors.Join(all, err)
	}
	return all
}

func has(ctx context.Context, d disk.Device, want []byte) error {
	got := make([]byte, len(want))
	if err := d.ReadAt(ctx, got, 0); err != nil {
		return err
	}
	for off := 0; off < len(want); off += disk.BlockSize {
		if !bytes.Equal(got[off:off+disk.BlockSize], want[off:off+disk.BlockSize]) {
			return fmt.Errorf("what was acknowledged at byte %d is lost", off)
		}
	}
	return nil
}

// victim makes a disk with something in it.
func (l *life) victim() {
	_, err := disk.Create(l.ctx, l.real, victimPath, disk.CreateOptions{Size: size})
	l.must(err)
	d, err := disk.Attach(l.ctx, l.real, victimPath,
		disk.AttachOptions{Generation: 1, Holder: "vm"})
	l.must(err)
	l.must(d.WriteAt(l.ctx, bytes.Repeat([]byte{1}, disk.BlockSize), 0))
	l.must(d.Close(l.ctx))
}

func (l *life) nothingBelow(prefix string) error {
	var left []string
	err := l.real.List(l.ctx, prefix, "",
		func(e blob.Entry) bool { left = append(left, e.Key); return true })
	if len(left) > 0 {
		err = fmt.Errorf("destroyed, and these are left: %v", left)
	}
	return err
}

// collect makes a collection, an hour after the one before.
func (l *life) collect(ctx context.Context) error {
	l.now = l.now.Add(time.Hour)
	_, err := gc.Collect(ctx, l.via,
		gc.Options{Grace: time.Hour, Now: func() time.Time { return l.now }})
	return err
}

// logObjects are requests for those.
func logObjects(r *http.Request) bool { return strings.Contains(r.URL.Path, "/log/") }
