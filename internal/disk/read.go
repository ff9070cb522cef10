package disk

import (
	"context"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ReadAt fills p from off.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.checkRange(off, int64(len(p))); err != nil {
		return err
	}
	d.touch()
	d.counters.reads.Add(1)
	d.counters.readBytes.Add(uint64(len(p)))
	return readAligned(p, off, func(p []byte, block uint64) error {
		return d.readBlocks(ctx, p, block)
	})
}

// readAligned turns a read of any range into one of whole blocks.
func readAligned(p []byte, off int64, read func(p []byte, block uint64) error) error {
	at := off % BlockSize
	if at == 0 && len(p)%BlockSize == 0 {
		if len(p) == 0 {
			return nil
		}
		return read(p, uint64(off/BlockSize))
	}
	n := (at + int64(len(p)) + BlockSize - 1) / BlockSize * BlockSize
	buf := make([]byte, n)
	if err := read(buf, uint64(off/BlockSize)); err != nil {
		return err
	}
	copy(p, buf[at:])
	return nil
}

// readBlocks fills p, whole blocks, from memory where it can and from the store for the rest.
func (d *Disk) readBlocks(ctx context.Context, p []byte, block uint64) error {
	if d.use.stale.Load() {
		return errs.New(errs.Unavailable,
			"the store has not confirmed for %v that disk %s has no newer writer",
			d.opts.StallTimeout, d.path)
	}
	var arr [8]blockRange
	d.pipe.mu.RLock()
	if err := d.pipe.err; err != nil && !errs.Is(err, errs.Corrupt) {
		d.pipe.mu.RUnlock()
		return err
	}
	missing := d.readDirtyLocked(p, block, arr[:0])
	d.pipe.mu.RUnlock()
	if len(missing) > 0 {
		defer d.store.Waiting()()
	}
	for _, m := range missing {
		part := p[(m.from-block)*BlockSize : (m.to-block)*BlockSize]
		if err := d.reader.read(ctx, part, m.from); err != nil {
			return d.readError(ctx, err)
		}
	}
	return nil
}

// readDirtyLocked copies what the batches have to p, and appends the ranges that they don't to
// missing.
func (d *Disk) readDirtyLocked(p []byte, block uint64, missing []blockRange) []blockRange {
	end := block + uint64(len(p)/BlockSize)
	if d.pipe.forming == nil && len(d.pipe.queue) == 0 && len(d.staging.stages) == 0 {
		return append(missing, blockRange{block, end})
	}
	for b := block; b < end; b++ {
		off := (b - block) * BlockSize
		if d.readDirtyBlockLocked(p[off:off+BlockSize], b) {
			continue
		}
		if n := len(missing); n > 0 && missing[n-1].to == b {
			missing[n-1].to++
		} else {
			missing = append(missing, blockRange{b, b + 1})
		}
	}
	return missing
}

func (d *Disk) readDirtyBlockLocked(dst []byte, block uint64) bool {
	if d.pipe.forming != nil && d.pipe.forming.read(dst, block) {
		return true
	}
	for i := len(d.pipe.queue) - 1; i >= 0; i-- {
		if d.pipe.queue[i].read(dst, block) {
			return true
		}
	}
	for i := len(d.staging.stages) - 1; i >= 0; i-- {
		if d.staging.stages[i].b.read(dst, block) {
			return true
		}
	}
	return false
}

// readError stops the disk's writes when what is stored is broken: nothing may be written on top. A
// read that was given up because the disk stopped says why that was.
//
// What is missing may have been collected, long after this session was replaced: then that is the
// reason.
func (d *Disk) readError(ctx context.Context, err error) error {
	if errs.Is(err, errs.Corrupt) {
		if fenced := d.revalidate(ctx); errs.Is(fenced, errs.Fenced) {
			return fenced
		}
		d.fail(err)
		return err
	}
	if why := d.Err(); why != nil {
		return why
	}
	return err
}
