package simtest

import (
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// step does one thing, or nothing where it makes no sense now.
func (w *world) step() {
	v := w.disks[w.rng.IntN(len(w.disks))]
	arg := w.rng.Uint64()
	switch k := w.rng.IntN(100); {
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
			w.start(s, func() { w.burst(s, arg) })
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
	case k < 96:
		w.start(w.coll, func() { w.log("collect: %v, %d deleted so far", w.coll.step(w.ctx), w.coll.deleted) })
	default:
		time.Sleep(time.Duration(arg % uint64(3*time.Second)))
	}
}

// crash ends the current session with whatever it has in flight.
func (w *world) crash(v *vdisk) {
	s := v.cur
	s.c.kill()
	s.d.Abandon()
	w.wait(s)
	v.cur = nil
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
	n := s.count()
	_, err := s.d.Checkpoint(w.ctx, name)
	w.log("checkpoint %s of %s: %v", name, v.path, err)
	if err != nil {
		w.ended(s, err)
		return
	}
	v.ckpts[name] = s.now()
	if err := s.ack(n); err != nil {
		w.violate("%v", err)
	}
}

// forget removes a checkpoint.
func (w *world) forget(v *vdisk) {
	if name, ok := w.pick(v); ok {
		delete(v.ckpts, name)
		w.log("remove checkpoint %s of %s: %v", name, v.path, w.client().Delete(w.ctx, v.path+"/ckpt/"+name))
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
	child, c, want := w.name("f/"), w.client(), v.ckpts[name]
	nv := &vdisk{path: child, blocks: len(want), closed: true, last: newTimeline(want), ckpts: map[string]content{}}
	done := make(chan error, 1)
	w.start(nv, func() {
		_, err := disk.Fork(w.ctx, c, v.path, name, child, disk.ForkOptions{Key: w.key})
		w.log("fork %s from %s of %s: %v", child, name, v.path, err)
		if err != nil { // what there may be of it is nobody's
			time.Sleep(10 * time.Second)
			_ = w.p.Delete(w.ctx, child+"/head")
		}
		done <- err
	})
	for range w.rng.IntN(6) { // these steps see it half done
		w.step()
	}
	w.wait(nv)
	if err := <-done; err == nil {
		w.disks = append(w.disks, nv)
	} else if !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotFound) {
		w.violate("fork %s: %v", child, err)
	}
}

// readOnly opens a checkpoint and compares.
func (w *world) readOnly(v *vdisk) {
	name, ok := w.pick(v)
	if !ok {
		return
	}
	r, err := disk.OpenReadOnly(w.ctx, w.client(), v.path, name, disk.ReadOnlyOptions{Key: w.key})
	if err == nil {
		defer func() { _ = r.Close() }()
		var got content
		if got, err = w.read(r); err == nil && !slices.Equal(got, v.ckpts[name]) {
			w.violate("checkpoint %s of %s: content %v, want %v", name, v.path, got, v.ckpts[name])
		}
	}
	if err != nil && !errs.Is(err, errs.Unavailable) {
		w.violate("read checkpoint %s of %s: %v", name, v.path, err)
	}
	w.log("read %s of %s: %v", name, v.path, err)
}

func (w *world) close(v *vdisk) {
	s := v.cur
	if s == nil {
		return
	}
	w.wait(s)
	n := s.count()
	err := s.d.Close(w.ctx)
	w.log("close %s: %v", v.path, err)
	v.cur = nil
	if err != nil {
		w.ended(s, err)
		s.c.kill()
		s.d.Abandon()
		return
	}
	v.closed = true
	if err := s.ack(n); err != nil {
		w.violate("%v", err)
	}
}

func (w *world) restore(v *vdisk) {
	name, ok := w.pick(v)
	if !ok || !v.closed || v.cur != nil {
		return
	}
	before := v.last.now()
	_, saved, err := disk.Restore(w.ctx, w.client(), v.path, name)
	w.log("restore %s of %s, saved as %s: %v", name, v.path, saved, err)
	after := make(content, v.blocks)
	copy(after, v.ckpts[name])
	if err == nil {
		v.ckpts[saved] = before
		v.last = newTimeline(after)
		return
	}
	if !errs.Is(err, errs.Unavailable) {
		w.violate("restore of %s: %v", v.path, err)
	}
	v.other, v.closed = append(v.other, after), false
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
	got, err := w.read(v.cur.d)
	if err != nil {
		w.ended(v.cur, err)
	} else if want := v.cur.now(); !slices.Equal(got, want) {
		w.violate("%s reads %v, want %v", v.path, got, want)
	}
}

// finish ends everything, collects what is left, and reads every disk and checkpoint through a store without
// faults.
func (w *world) finish() {
	w.running.Wait()
	for _, v := range w.disks {
		for _, s := range append(v.past, v.cur) {
			if s != nil {
				s.d.Abandon()
			}
		}
		v.cur = nil
	}
	time.Sleep(10 * time.Second) // what was late has arrived
	for _, v := range w.disks {
		if w.attach(v, w.p.client(0, 0)); v.cur != nil {
			w.close(v)
		}
		if !v.closed && w.failed() == nil {
			w.violate("%s can't be attached over a good store", v.path)
		}
	}
	w.coll.store = w.p.client(0, 0)
	for range 2 {
		if err := w.coll.step(w.ctx); err != nil && w.failed() == nil {
			w.violate("collect over a good store: %v", err)
		}
		time.Sleep(grace)
	}
	for _, v := range w.disks {
		if w.failed() != nil {
			return
		}
		if w.attach(v, w.p.client(0, 0)); v.cur != nil {
			v.cur.d.Abandon()
		}
		for _, name := range sortedNames(v.ckpts) {
			w.final(v, name)
		}
	}
}

func (w *world) final(v *vdisk, name string) {
	r, err := disk.OpenReadOnly(w.ctx, w.p.client(0, 0), v.path, name, disk.ReadOnlyOptions{Key: w.key})
	if err != nil {
		w.violate("checkpoint %s of %s in the end: %v", name, v.path, err)
		return
	}
	defer func() { _ = r.Close() }()
	if got, err := readContent(w.ctx, r); err != nil || !slices.Equal(got, v.ckpts[name]) {
		w.violate("checkpoint %s of %s in the end: %v, content %v, want %v", name, v.path, err, got, v.ckpts[name])
	}
}

func sortedNames(m map[string]content) (names []string) {
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
