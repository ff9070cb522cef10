package simtest

import (
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// step does one thing, or nothing where it makes no sense now.
func (w *world) step() {
	if len(w.gone) > 0 && w.rng.IntN(6) == 0 {
		w.haunt(w.gone[w.rng.IntN(len(w.gone))])
		return
	}
	v := w.disks[w.rng.IntN(len(w.disks))]
	if w.hostile && w.rng.IntN(junkEvery) == 0 {
		w.litter(v)
	}
	arg := w.rng.Uint64()
	k := w.rng.IntN(100)
	if v.busy && (k < 62 || k >= 75 && k < 86) {
		k = 62 + k%13 // beside a restore others look at the disk, and remove its checkpoints
	}
	switch { // what is broken is rare otherwise
	case w.p.bug == restoreUnpinned && k%3 == 0:
		k = 82
	case w.p.bug == collectOnce && k%3 == 0:
		k = 52 + 38*(k%2) // a checkpoint, or a collection
	// writes, takeovers, zombies that go on, and time for a bound to pass
	case w.p.bug.ofJournal() && k%3 == 0:
		k = []int{0, 20, 45, 97}[k/3%4]
	case (w.p.bug == destroyForked || w.p.bug == destroyPinned) && k%3 == 0:
		k = []int{52, 67, 72, 94}[k/3%4]
	}
	switch {
	case v.cur == nil && k < 45 || k < 8: // with a session: a takeover while it lives
		if v.cur != nil && w.rng.IntN(2) == 0 {
			w.log("it dies first")
			w.crash(v)
		}
		w.attach(v, w.client())
	case k < 40:
		if s := v.cur; s != nil && w.start(s, func() { w.burst(s, arg) }) && arg%2 == 0 {
			w.wait(s)
		}
	case k < 52: // a zombie wakes
		if len(v.past) > 0 {
			s := v.past[w.rng.IntN(len(v.past))]
			name := w.name("z")
			w.start(s, func() {
				if w.burst(s, arg); arg%3 == 0 {
					w.nameAsZombie(s, name)
				}
			})
		}
	case k < 62:
		w.checkpoint(v)
	case k < 67:
		w.forget(v)
	case k < 72:
		w.fork(v)
	case k < 75:
		w.readOnly(v)
	case k < 81:
		w.close(v)
	case k < 83:
		w.restore(v)
	case k < 84:
		w.grow(v)
	case k < 86:
		w.compare(v)
	case k < 94:
		w.collect()
	case k < 96:
		w.destroy(v)
	default:
		time.Sleep(time.Duration(arg % uint64(3*time.Second)))
	}
}

// crash ends the current session with whatever it has in flight.
func (w *world) crash(v *vdisk) {
	w.end(v.cur)
	v.cur = nil
}

// end kills a session's process, or its host.
func (w *world) end(s *session) {
	s.c.kill()
	own := s.host != nil && s.host.user == s // else it was ended before
	if own {
		s.host.death.Kill()
	}
	s.d.Abandon()
	w.wait(s)
	if own {
		w.unmount(s.v, s.host)
	}
}

func (w *world) checkpoint(v *vdisk) {
	name := w.name("c")
	if v.cur == nil {
		if !v.closed {
			return
		}
		_, err := disk.CheckpointClosed(w.ctx, w.client(), v.path, name)
		if err == nil {
			v.ckpts[name] = v.last.now()
		}
		w.log("checkpoint %s of closed %s: %v", name, v.path, err)
		return
	}
	s := v.cur
	w.wait(s)
	if s.broken.Load() {
		w.crash(v)
		return
	}
	n := s.count()
	if !w.quiet && w.rng.IntN(8) == 0 { // its process dies meanwhile
		defer time.AfterFunc(time.Duration(w.rng.IntN(100))*time.Millisecond, s.c.kill).Stop()
	}
	_, err := s.d.Checkpoint(w.ctx, name)
	w.log("checkpoint %s of %s: %v", name, v.path, err)
	if err != nil {
		w.ended(s, err)
		return
	}
	v.ckpts[name] = s.now()
	if err := s.keep(n); err != nil && !v.dead.Load() {
		w.violate("%v", err)
	}
}

// nameAsZombie makes a checkpoint in a session that another has replaced: what it has may be no
// state of the disk.
func (w *world) nameAsZombie(s *session, name string) {
	_, err := s.d.Checkpoint(w.ctx, name)
	if w.log("a zombie's checkpoint %s of %s: %v", name, s.v.path, err); err == nil {
		w.violate("a writer that was replaced made checkpoint %s of %s", name, s.v.path)
	}
}

// forget removes a checkpoint.
func (w *world) forget(v *vdisk) {
	if name, ok := w.pick(v); ok {
		w.remove(v, name)
	}
}

func (w *world) remove(v *vdisk, name string) {
	if _, ok := v.ckpts[name]; ok {
		delete(v.ckpts, name)
		w.p.settle(v.path + "/ckpt/" + name)
		w.log("remove checkpoint %s of %s: %v", name, v.path,
			w.client().Delete(w.ctx, v.path+"/ckpt/"+name))
	}
}

func (w *world) pick(v *vdisk) (string, bool) {
	var names []string
	for n := range v.ckpts {
		names = append(names, n)
	}
	if len(names) == 0 {
		return "", false
	}
	slices.Sort(names)
	return names[w.rng.IntN(len(names))], true
}

// fork runs beside what else happens, the removal of its checkpoint and the collector too.
func (w *world) fork(v *vdisk) {
	name, ok := w.pick(v)
	if !ok || len(w.disks) == maxDisks {
		return
	}
	child, c, want := w.name("f/"), w.slowClient(), v.ckpts[name]
	nv := &vdisk{path: child, blocks: len(want), closed: true, last: newTimeline(want),
		ckpts: map[string]content{}}
	opts := disk.ForkOptions{Key: w.key, Limit: grace / 2}
	if w.p.logs != nil && w.rng.IntN(2) == 0 { // the other half have their logs in the pool
		opts.LogURL, opts.OpenLog = logURL, c.openLog
	}
	done := make(chan error, 1)
	w.start(nv, func() {
		_, err := disk.Fork(w.ctx, c, v.path, name, child, opts)
		w.log("fork %s from %s of %s: %v", child, name, v.path, err)
		done <- err
	})
	w.meddle(v, name)
	w.wait(nv)
	err := <-done
	if err == nil {
		w.disks = append(w.disks, nv)
		return
	}
	w.orphans = append(w.orphans, child) // its head may be there, or come
	if !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotFound) {
		w.violate("fork %s: %v", child, err)
	}
}

// meddle does something else while what began with a checkpoint is half done; often what hurts
// most: the checkpoint goes, and the collector comes, twice.
func (w *world) meddle(v *vdisk, name string) {
	if w.rng.IntN(2) == 0 {
		for range w.rng.IntN(6) {
			w.step()
		}
		return
	}
	time.Sleep(time.Duration(w.rng.Int64N(int64(1+w.rng.IntN(8)) * int64(grace))))
	w.remove(v, name)
	for range 2 {
		w.collect()
		w.wait(w.coll)
		time.Sleep(grace)
	}
}

// slowClient is one whose requests may take longer than a grace.
func (w *world) slowClient() *client {
	c := w.client()
	if w.rng.IntN(2) == 0 {
		c.slow = 3 * grace
	}
	return c
}

// readOnly opens a checkpoint and compares, now and after a while.
func (w *world) readOnly(v *vdisk) {
	name, ok := w.pick(v)
	if !ok {
		return
	}
	want, c := v.ckpts[name], w.slowClient()
	stay := time.Duration(w.rng.Int64N(int64(8 * grace)))
	opts := disk.ReadOnlyOptions{Key: w.key}
	opts.OpTimeout, opts.StallTimeout, opts.FrameBytes, opts.MapBytes = 4*time.Second,
		20*time.Second, blockSize, 1
	reader := new(int)
	w.start(reader, func() {
		r, err := disk.OpenReadOnly(w.ctx, c, v.path, name, opts)
		for range 2 {
			var got content
			if err == nil {
				got, err = w.read(r)
			}
			if err == nil && !slices.Equal(got, want) {
				w.violate("checkpoint %s of %s: content %v, want %v", name, v.path, got, want)
			}
			time.Sleep(stay)
		}
		if r != nil {
			_ = r.Close()
		}
		if err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotFound) {
			w.violate("read checkpoint %s of %s: %v", name, v.path, err)
		}
		w.log("read %s of %s for %v: %v", name, v.path, stay, err)
	})
	w.meddle(v, name)
}

func (w *world) close(v *vdisk) {
	s := v.cur
	if s == nil {
		return
	}
	w.wait(s)
	if s.broken.Load() {
		w.crash(v)
		return
	}
	n := s.count()
	err := s.d.Close(w.ctx)
	w.log("close %s: %v", v.path, err)
	v.cur = nil
	if err != nil {
		w.ended(s, err)
		w.end(s)
		return
	}
	w.unmount(v, s.host)
	v.closed = true
	if err := s.keep(n); err != nil && !v.dead.Load() {
		w.violate("%v", err)
	}
}

func (w *world) restore(v *vdisk) {
	name, ok := w.pick(v)
	if !ok || !v.closed || v.cur != nil || v.busy {
		return
	}
	before, c := v.last.now(), w.slowClient()
	c.noPins = w.p.bug == restoreUnpinned
	after := make(content, v.blocks)
	copy(after, v.ckpts[name])
	v.busy = true
	var saved string
	var err error
	w.start(v, func() {
		_, saved, err = disk.Restore(w.ctx, c, v.path, name)
		w.log("restore %s of %s, saved as %s: %v", name, v.path, saved, err)
	})
	w.meddle(v, name)
	w.wait(v)
	v.busy = false
	switch {
	case err == nil:
		v.ckpts[saved] = before
		v.last = newTimeline(after)
	case errs.Is(err, errs.NotFound): // the checkpoint was removed first
	case errs.Is(err, errs.Unavailable):
		v.other, v.closed = append(v.other, after), false
	case v.dead.Load():
	default:
		w.violate("restore of %s: %v", v.path, err)
	}
}

func (w *world) grow(v *vdisk) {
	if !v.closed || v.cur != nil {
		return
	}
	h, err := disk.Grow(w.ctx, w.client(), v.path, int64(v.blocks+1+w.rng.IntN(4))*blockSize)
	w.log("grow %s: %v", v.path, err)
	if err == nil {
		v.blocks = int(h.Size / blockSize)
		grown := make(content, v.blocks)
		copy(grown, v.last.now())
		v.last = newTimeline(grown)
	} else {
		v.closed = false
	}
}

// compare reads a session's own writes back.
func (w *world) compare(v *vdisk) {
	if v.cur == nil {
		return
	}
	w.wait(v.cur)
	if v.cur.broken.Load() {
		return
	}
	got, err := w.read(v.cur.d)
	if err != nil {
		w.ended(v.cur, err)
	} else if want := v.cur.now(); !slices.Equal(got, want) {
		w.violate("%s reads %v, want %v", v.path, got, want)
	}
}

// finish ends everything, collects what is left, and reads every disk and checkpoint through a
// store without faults.
func (w *world) finish() {
	w.running.Wait()
	w.quiet = true
	for _, v := range append(w.disks, w.gone...) {
		for _, s := range append(v.past, v.cur) {
			if s != nil {
				w.end(s)
			}
		}
		v.cur, v.past = nil, nil
	}
	time.Sleep(settled) // what was late has arrived
	w.p.bringBack("")
	if w.p.logs != nil {
		w.p.logs.bringBack("")
	}
	w.bury()
	for _, v := range w.disks {
		w.attach(v, w.p.client(0, 0))
		// what it missed is back by now
		for again := 0; w.p.lies && v.cur == nil && again < 3 && w.failed() == nil; again++ {
			w.attach(v, w.p.client(0, 0))
		}
		if v.cur != nil {
			w.close(v)
		}
		if !v.closed && w.failed() == nil {
			w.violate("%s can't be attached over a good store", v.path)
		}
	}
	w.coll = newCollector(w.p, w.p.client(0, 0), w.coll.codec)
	w.clean()
	// in an hour all pins have ended
	for _, pause := range []time.Duration{time.Hour, grace, grace} {
		if _, err := w.coll.step(w.ctx); err != nil && w.failed() == nil {
			w.violate("collect over a good store: %v", err)
		}
		time.Sleep(pause)
	}
	for _, v := range w.gone {
		w.nothingLeft(v)
	}
	for _, v := range w.disks {
		if w.failed() != nil {
			return
		}
		if w.p.bug == noBug { // a bug must be found by what it breaks
			w.noGarbage(v)
		}
		if w.attach(v, w.p.client(0, 0)); v.cur != nil {
			v.cur.d.Abandon()
		}
		for _, name := range sortedNames(v.ckpts) {
			w.final(v, name)
		}
	}
}

// noGarbage holds a disk that all is quiet around against what an independent walk finds.
func (w *world) noGarbage(v *vdisk) {
	var keys []string
	r, err := fsck.Check(w.ctx, w.p.Store, v.path, fsck.Options{OpenLog: w.p.client(0, 0).openLog,
		Garbage: func(key string, _ int64) { keys = append(keys, key) }})
	if err != nil || r.DamageCount > 0 || r.Garbage().Objects > 0 {
		w.violate("%s in the end: %v, damage %+v, garbage %v", v.path, err, r.Damage, keys)
	}
}

func (w *world) final(v *vdisk, name string) {
	r, err := disk.OpenReadOnly(w.ctx, w.p.client(0, 0), v.path, name,
		disk.ReadOnlyOptions{Key: w.key})
	if err != nil {
		w.violate("checkpoint %s of %s in the end: %v", name, v.path, err)
		return
	}
	defer func() { _ = r.Close() }()
	if got, err := readContent(w.ctx, r); err != nil || !slices.Equal(got, v.ckpts[name]) {
		w.violate("checkpoint %s of %s in the end: %v, content %v, want %v", name, v.path, err, got,
			v.ckpts[name])
	}
}

func sortedNames(m map[string]content) (names []string) {
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
