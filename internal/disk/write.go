package disk

import (
	"context"
	"slices"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
)

// writeGroup is how many blocks enter a batch at a time.
const writeGroup = 64

// WriteAt writes p at off. It is in memory when WriteAt returns; only Flush makes it durable. While
// DirtyBytes are waiting for the store it waits too, up to the stall bound.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := d.checkRange(off, int64(len(p))); err != nil {
		return err
	}
	d.touch()
	d.counters.writes.Add(1)
	d.counters.writeBytes.Add(uint64(len(p)))
	for len(p) > 0 {
		block, at := uint64(off/BlockSize), int(off%BlockSize)
		var n int
		var err error
		if at != 0 || len(p) < BlockSize {
			n = min(len(p), BlockSize-at)
			err = d.writePart(ctx, block, at, p[:n])
		} else {
			n, err = d.writeBlocks(ctx, block, p[:len(p)-len(p)%BlockSize])
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// writeBlocks puts whole blocks into the forming batch, as many as fit, and returns how many bytes.
// It copies the content before it takes the lock, for which all reads, writes and flushes wait. A
// page fault or the scheduler may interrupt a copy.
func (d *Disk) writeBlocks(ctx context.Context, block uint64, p []byte) (int, error) {
	var arr [writeGroup]*blockMem
	p = p[:min(len(p), writeGroup*BlockSize)]
	if d.opts.Journal != nil {
		p = p[:min(len(p), d.opts.Journal.MaxContent())]
	}
	mems := arr[:len(p)/BlockSize]
	d.memory.blocks.get(mems)
	for i, m := range mems {
		copy(m[:], p[i*BlockSize:])
	}
	if err := d.lockForWrite(ctx, len(p)); err != nil {
		d.memory.blocks.put(mems)
		return 0, err
	}
	b, n := d.formLocked(), 0
	for n < len(mems) && !d.fullLocked() {
		mems[n] = d.putLocked(b, block+uint64(n), mems[n])
		n++
	}
	d.logLocked(b, journal.Record{Kind: journal.Data, Block: block, Count: uint64(n),
		Blocks: p[:n*BlockSize]})
	d.sealIfFullLocked()
	d.pipe.mu.Unlock()
	// what was overwritten or did not fit
	d.memory.blocks.put(slices.DeleteFunc(mems, func(m *blockMem) bool { return m == nil }))
	return n * BlockSize, nil
}

// putLocked gives a block's content to a batch, and returns memory that nobody uses any more, or
// nil.
func (d *Disk) putLocked(b *batch, block uint64, content *blockMem) *blockMem {
	old := b.put(block, content)
	if old == nil {
		d.pipe.dirty += BlockSize
	}
	return old
}

// writePart changes part of one block. The rest comes from memory, or else from the store, which it
// reads without the lock. It uses that only if the block can't have changed meanwhile: it is in no
// batch, and no batch has left memory since.
func (d *Disk) writePart(ctx context.Context, block uint64, at int, p []byte) error {
	buf := new(blockMem)
	have, seen := false, uint64(0)
	for {
		if err := d.lockForWrite(ctx, BlockSize); err != nil {
			return err
		}
		if d.readDirtyBlockLocked(buf[:], block) || (have && seen == d.pipe.commits) {
			copy(buf[at:], p)
			b := d.formLocked()
			d.putLocked(b, block, buf)
			d.logLocked(b, journal.Record{Kind: journal.Data, Block: block, Count: 1,
				Blocks: buf[:]})
			d.sealIfFullLocked()
			d.pipe.mu.Unlock()
			return nil
		}
		seen, have = d.pipe.commits, true
		d.pipe.mu.Unlock()
		release := d.store.Waiting()
		err := d.reader.read(ctx, buf[:], block)
		release()
		if err != nil {
			return d.readError(ctx, err)
		}
	}
}

// Trim makes the range read as zeros and its space unused.
func (d *Disk) Trim(ctx context.Context, off, length int64) error {
	return d.Zero(ctx, off, length)
}

// Zero makes the range read as zeros. Whole blocks cost a few bytes of log, whatever their number.
func (d *Disk) Zero(ctx context.Context, off, length int64) error {
	if err := d.checkRange(off, length); err != nil {
		return err
	}
	d.touch()
	zeros := make([]byte, BlockSize)
	for length > 0 {
		block, at := uint64(off/BlockSize), int(off%BlockSize)
		n := min(length, int64(BlockSize-at))
		if at != 0 || length < BlockSize {
			if err := d.writePart(ctx, block, at, zeros[:n]); err != nil {
				return err
			}
		} else {
			n = length - length%BlockSize
			if err := d.zeroBlocks(ctx, block, block+uint64(n/BlockSize)); err != nil {
				return err
			}
		}
		off, length = off+n, length-n
	}
	return nil
}

func (d *Disk) zeroBlocks(ctx context.Context, from, to uint64) error {
	if err := d.lockForWrite(ctx, 0); err != nil {
		return err
	}
	defer d.pipe.mu.Unlock()
	b := d.formLocked()
	b.zero(from, to)
	d.logLocked(b, journal.Record{Kind: journal.Zero, Block: from, Count: to - from})
	d.sealIfFullLocked()
	return nil
}

// lockForWrite takes d.pipe.mu when the disk accepts a mutation of n bytes of content and has room
// for it.
func (d *Disk) lockForWrite(ctx context.Context, n int) error {
	d.pipe.mu.Lock()
	if d.pipe.err == nil && !d.pipe.closing && d.mustWaitLocked(n) == nil {
		return nil
	}
	sctx, cancel := d.stall(ctx)
	defer cancel()
	for {
		if err := d.mutableLocked(); err != nil {
			d.pipe.mu.Unlock()
			return err
		}
		room := d.mustWaitLocked(n)
		if room == nil {
			return nil
		}
		d.pipe.mu.Unlock()
		select {
		case <-room:
		case <-d.pipe.stopped:
		case <-sctx.Done():
			return d.stalled(sctx, "write")
		}
		d.pipe.mu.Lock()
	}
}

// mustWaitLocked returns what to wait for before a write of n bytes of content, or nil.
func (d *Disk) mustWaitLocked(n int) <-chan struct{} {
	if d.pipe.dirty >= d.opts.DirtyBytes {
		return d.pipe.room
	}
	return d.journalMustWaitLocked(n)
}

// formLocked returns the forming batch, made when there is none.
func (d *Disk) formLocked() *batch {
	if d.pipe.forming == nil {
		d.pipe.forming = newBatch(now(), &d.memory.tables)
	}
	return d.pipe.forming
}

func (d *Disk) fullLocked() bool {
	return d.pipe.forming.blocks()*BlockSize >= d.opts.ObjectBytes ||
		len(d.pipe.forming.zeros) >= maxZeroRuns ||
		d.pipe.forming.blocks() >= format.MaxSegBlocks || d.journalShareLocked()
}

func (d *Disk) sealIfFullLocked() {
	if d.fullLocked() {
		d.sealLocked()
		d.pumpLocked()
	}
}
