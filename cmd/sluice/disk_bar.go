package main

import (
	"context"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// diskBar shows how far something is, on a terminal and after a second only.
type diskBar struct {
	progress *mpb.Progress
	bar      *mpb.Bar
}

// barUnit says what a bar counts.
type barUnit bool

const (
	countsBytes   barUnit = false
	countsObjects barUnit = true
)

func (d *deps) newDiskBar(ctx context.Context, name string, unit barUnit) *diskBar {
	if terminal(d.stderr) == nil {
		return &diskBar{}
	}
	counters := []decor.Decorator{decor.CountersKibiByte("% .1f / % .1f"),
		decor.AverageSpeed(decor.SizeB1024(0), "  % .1f")}
	if unit == countsObjects {
		counters = []decor.Decorator{decor.CountersNoUnit("%d / %d")}
	}
	p := mpb.NewWithContext(ctx, mpb.WithOutput(d.stderr), mpb.WithRenderDelay(after(noticeable)))
	return &diskBar{progress: p, bar: p.AddBar(0, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(name+" ")), mpb.AppendDecorators(counters...))}
}

// set moves the bar to done of total.
func (b *diskBar) set(done, total int64) {
	if b.bar != nil {
		b.bar.SetTotal(total, false)
		b.bar.SetCurrent(done)
	}
}

// end removes the bar.
func (b *diskBar) end() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.progress.Wait()
	}
}
