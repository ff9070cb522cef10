package main

import (
	"context"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// uploadBar shows how far an upload is, on a terminal and after a second only.
type uploadBar struct {
	progress *mpb.Progress
	bar      *mpb.Bar
}

// newUploadBar makes a bar for total bytes; 0 means that the total isn't known.
func (d *deps) newUploadBar(ctx context.Context, name string, total int64) *uploadBar {
	if terminal(d.stderr) == nil {
		return &uploadBar{}
	}
	p := mpb.NewWithContext(ctx, mpb.WithOutput(d.stderr), mpb.WithRenderDelay(after(noticeable)))
	counters := decor.CountersKibiByte("% .1f / % .1f")
	if total == 0 {
		counters = decor.CurrentKibiByte("% .1f")
	}
	return &uploadBar{progress: p, bar: p.AddBar(total, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(name+" ")), mpb.AppendDecorators(counters, decor.AverageSpeed(decor.SizeB1024(0), "  % .1f")))}
}

// after returns a channel that is closed after a while.
func after(wait time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(wait, func() { close(c) })
	return c
}

// reader counts what is read of r.
func (b *uploadBar) reader(r io.Reader) io.Reader {
	if b.bar == nil {
		return r
	}
	return b.bar.ProxyReader(r)
}

// end removes the bar.
func (b *uploadBar) end() {
	if b.bar == nil {
		return
	}
	b.bar.Abort(true)
	b.progress.Wait()
}
