package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	probeDir     = "probe/"
	probeRacers  = 8
	probeCleanup = 10 * time.Second
)

// Probe checks that a store really does what the disks are built on: conditional writes of which
// exactly one of several wins, and reads and listings that see what was written. name says in
// errors which store it is.
//
// A store that ignores conditions loses data silently, as soon as two workers believe that a disk
// is theirs; so it is Unsupported. Other errors say that the store couldn't be asked. The probe's
// objects, below "probe/", are removed again.
func Probe(ctx context.Context, s blob.Store, name string) error {
	p := prober{s: s, name: name, dir: probeDir + rand.Text() + "/"}
	return p.run(ctx, p.absent, p.match, p.race, p.ranges, p.list, p.gone)
}

// ProbeLog is Probe for a store that only has the logs of disks. Of such a one listings need not be
// in order, and nothing in it is ever replaced.
func ProbeLog(ctx context.Context, s blob.Store, name string) error {
	p := prober{s: s, name: name, dir: probeDir + rand.Text() + "/"}
	return p.run(ctx, p.absent, p.race, p.ranges)
}

func (p *prober) run(ctx context.Context, steps ...func(context.Context) error) (err error) {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeCleanup)
		defer cancel()
		if cleanErr := p.clean(ctx); err == nil {
			err = cleanErr
		}
	}()
	for _, step := range steps {
		err := step(ctx)
		var refused *errs.Error
		if errs.Is(err, errs.Denied) && errors.As(err, &refused) {
			return refused // what we were about to do is not the point
		}
		if err != nil {
			return fmt.Errorf("probe store %s: %w", p.name, err)
		}
	}
	return nil
}

type prober struct {
	s         blob.Store
	name, dir string
	keys      []string
}

func (p *prober) key(name string) string {
	p.keys = append(p.keys, p.dir+name)
	return p.dir + name
}

func (p *prober) clean(ctx context.Context) error {
	var all error
	for _, key := range p.keys {
		all = errors.Join(all, p.s.Delete(ctx, key))
	}
	if all != nil {
		return fmt.Errorf("remove the probe's objects in store %s: %w", p.name, all)
	}
	return nil
}

func (p *prober) refuse(format string, args ...any) error {
	return errs.New(errs.Unsupported, format, args...).
		WithRemedy(
			"store %s can't hold disks; use one with conditional writes (If-None-Match and If-Match), such as "+
				"Amazon S3, versitygw, MinIO or a directory", p.name)
}

// wantConflict turns the outcome of a write that must have been refused into the probe's verdict.
func (p *prober) wantConflict(err error, what string) error {
	switch {
	case err == nil:
		return p.refuse("it accepts %s", what)
	case errs.Is(err, errs.Conflict):
		return nil
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

func (p *prober) absent(ctx context.Context) error {
	key := p.key("absent")
	if _, err := p.s.PutIfAbsent(ctx, key, []byte("first")); err != nil {
		return fmt.Errorf("write a new object: %w", err)
	}
	_, err := p.s.PutIfAbsent(ctx, key, []byte("second"))
	if err := p.wantConflict(err,
		"a second write of an object that may be written once"); err != nil {
		return err
	}
	return p.wantBody(ctx, key, "first")
}

func (p *prober) wantBody(ctx context.Context, key, want string) error {
	o, err := p.s.Get(ctx, key, blob.All())
	if errs.Is(err, errs.NotFound) || err == nil && string(o.Data) != want {
		return p.refuse("a read doesn't see the last write")
	}
	return err
}

func (p *prober) match(ctx context.Context) error {
	key := p.key("match")
	old, err := p.s.PutIfAbsent(ctx, key, []byte("one"))
	if err != nil {
		return fmt.Errorf("write a new object: %w", err)
	}
	seen, err := p.s.Get(ctx, key, blob.All())
	if err != nil {
		return fmt.Errorf("read a new object: %w", err)
	}
	if seen.ETag != old {
		return p.refuse(
			"a read gives another etag (%q) than the write did (%q); does something on the way change it?", seen.ETag, old)
	}
	_, err = p.s.PutIfMatch(ctx, key, []byte("two"), old)
	switch {
	case errs.Is(err, errs.Conflict):
		return p.refuse(
			"it doesn't know the etag that it gave itself (%q); does something on the way change it?", old)
	case err != nil:
		return fmt.Errorf("replace an object by its etag: %w", err)
	}
	_, err = p.s.PutIfMatch(ctx, key, []byte("three"), old)
	if err := p.wantConflict(err, "a write on condition of a version that is gone"); err != nil {
		return err
	}
	return p.wantBody(ctx, key, "two")
}

// gone deletes an object. What some stores keep of it, as a version, must be none: a disk that was
// destroyed would come back by the next write of its head, or could not be made again.
func (p *prober) gone(ctx context.Context) error {
	const versions = "; does the bucket keep versions? If so, use one that does not"
	key := p.key("gone")
	old, err := p.s.PutIfAbsent(ctx, key, []byte("first"))
	if err != nil {
		return fmt.Errorf("write a new object: %w", err)
	}
	if err := p.s.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete an object: %w", err)
	}
	if _, err := p.s.Get(ctx, key, blob.All()); !errs.Is(err, errs.NotFound) {
		if err == nil {
			return p.refuse("it still has an object that was deleted")
		}
		return fmt.Errorf("read a deleted object: %w", err)
	}
	switch _, err := p.s.PutIfMatch(ctx, key, []byte("second"), old); {
	case err == nil:
		return p.refuse(
			"it replaces an object that was deleted, on condition of what it had been%s", versions)
	case !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict):
		return fmt.Errorf("replace a deleted object: %w", err)
	}
	switch _, err := p.s.PutIfAbsent(ctx, key, []byte("third")); {
	case errs.Is(err, errs.Conflict):
		return p.refuse("it takes an object that was deleted for one that is there%s", versions)
	case err != nil:
		return fmt.Errorf("write a deleted object again: %w", err)
	}
	return nil
}

func (p *prober) race(ctx context.Context) error {
	key := p.key("race")
	results := make([]error, probeRacers)
	var g errgroup.Group
	for i := range results {
		g.Go(func() error {
			_, results[i] = p.s.PutIfAbsent(ctx, key, fmt.Append(nil, i))
			return nil
		})
	}
	_ = g.Wait() // the results tell
	winner, unknown := -1, error(nil)
	for i, err := range results {
		switch {
		case err == nil && winner >= 0:
			return p.refuse("it lets two writers win one race")
		case err == nil:
			winner = i
		case !errs.Is(err, errs.Conflict):
			unknown = err
		}
	}
	if winner >= 0 {
		return p.wantBody(ctx, key, fmt.Sprint(winner))
	}
	if unknown != nil {
		return fmt.Errorf("race for an object: %w", unknown)
	}
	return p.refuse("it lets nobody win a race")
}

func (p *prober) ranges(ctx context.Context) error {
	key := p.key("ranges")
	if _, err := p.s.Put(ctx, key, []byte("0123456789")); err != nil {
		return fmt.Errorf("write an object: %w", err)
	}
	for r, want := range map[blob.Range]string{{Offset: 2, Length: 3}: "234",
		{Offset: -2, Length: -1}: "89"} {
		o, err := p.s.Get(ctx, key, r)
		if err != nil {
			return fmt.Errorf("read a range: %w", err)
		}
		if !bytes.Equal(o.Data, []byte(want)) || o.Size != 10 {
			return p.refuse("it doesn't answer ranged reads right")
		}
	}
	return nil
}

func (p *prober) list(ctx context.Context) error {
	var listed []string
	err := p.s.List(ctx, p.dir, p.dir+"match", func(e blob.Entry) bool {
		listed = append(listed, e.Key)
		return true
	})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if len(listed) != 2 || listed[0] != p.dir+"race" && listed[0] != p.dir+"ranges" ||
		listed[0] >= listed[1] {
		return p.refuse("a listing doesn't show what was written, in order and from the middle")
	}
	return nil
}
