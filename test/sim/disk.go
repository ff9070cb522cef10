package sim

import (
	"context"
	"io"
	"path"
	"slices"

	engine "github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// disks is the store: it enforces epochs and generations as the real disk does, and remembers which
// writes it has acknowledged.
type disks struct {
	w  *world
	of map[fleet.MachineID]*disk
}

type disk struct {
	epoch      uint64
	generation fleet.Generation
	holder     *vm   // attached and not closed; nil: clean
	log        []int // what a reader finds
	acked      []int // what writers were told is safe
	next       int
}

func newDisks(w *world) *disks { return &disks{w: w, of: map[fleet.MachineID]*disk{}} }

// ForkImage implements control.Disks.
func (d *disks) ForkImage(_ context.Context, _ fleet.Image, url string, _ int64,
	_ engine.KEK) error {
	if d.w.chance(50) {
		return errs.New(errs.Unavailable, "the store is slow")
	}
	id := fleet.MachineID(path.Base(url))
	if d.of[id] == nil {
		d.of[id] = &disk{}
	}
	if d.w.chance(20) {
		return errs.New(errs.Unavailable, "the store's answer was lost")
	}
	return nil
}

// Rekey implements control.Disks.
func (d *disks) Rekey(context.Context, string, engine.KEK, engine.KEK) error { return nil }

// WriteOwner implements control.Disks.
func (d *disks) WriteOwner(context.Context, string, []byte) error { return nil }

// Destroy implements control.Disks.
func (d *disks) Destroy(_ context.Context, url string) error {
	if d.w.chance(50) {
		return errs.New(errs.Unavailable, "the store is slow")
	}
	id := fleet.MachineID(path.Base(url))
	if m, ok := d.w.shadow.machines[id]; ok && m.Desired != fleet.DesiredDestroyed {
		d.w.violated("the disk of machine %s was destroyed; its user wants it %s", id, m.Desired)
	}
	delete(d.of, id)
	return nil
}

// Build implements control.Images.
func (d *disks) Build(_ context.Context, name fleet.ImageName, size int64,
	_ io.Reader) (fleet.Image, error) {
	return fleet.Image{Name: name, DiskURL: "mem://pool/disks/img", Checkpoint: "base",
		SizeBytes: size}, nil
}

// attach opens a disk under a generation: an older one than the head's is refused, however late it
// comes.
func (d *disks) attach(v *vm) bool {
	disk := d.of[v.machine]
	if disk == nil || v.generation < disk.generation {
		return false
	}
	if old := disk.holder; old != nil && old != v && old.alive && !old.over() && d.w.opt.Calm {
		d.w.violated("machine %s is attached on %s (generation %d) while a VM on %s (generation "+
			"%d) still has it", v.machine, v.host.id,
			v.generation, old.host.id, old.generation)
	}
	disk.epoch++
	disk.generation, disk.holder = v.generation, v
	v.epoch = disk.epoch
	if !slices.Equal(disk.log, disk.acked) {
		d.w.violated("machine %s: acknowledged writes are lost: attached with %d of %d", v.machine,
			len(disk.log), len(disk.acked))
	}
	return true
}

// write is one write with a flush; false: fenced.
func (d *disks) write(v *vm) bool {
	disk := d.of[v.machine]
	if disk == nil {
		return false
	}
	if v.epoch != disk.epoch {
		if d.w.opt.Break != BugNoFence {
			return false
		}
		d.w.violated("two writers of machine %s: epoch %d wrote while epoch %d has it", v.machine,
			v.epoch, disk.epoch)
	}
	disk.next++
	disk.log = append(disk.log, disk.next)
	disk.acked = append(disk.acked, disk.next)
	return true
}

// close ends an epoch cleanly.
func (d *disks) close(v *vm) {
	if disk := d.of[v.machine]; disk != nil && disk.epoch == v.epoch {
		disk.holder = nil
	}
}
