package qemu

import (
	"context"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// work is something that is being made.
type work struct {
	done chan struct{} // closed once err is set
	err  error
}

// once has one caller at a time do something; those that come meanwhile wait for it and share its
// outcome, unless that is only the end of the other's patience.
func (d *Driver) once(ctx context.Context, what string, do func() error) error {
	for {
		d.mu.Lock()
		w, busy := d.works[what]
		if !busy {
			w = &work{done: make(chan struct{})}
			d.works[what] = w
		}
		d.mu.Unlock()
		if !busy {
			w.err = do()
			d.mu.Lock()
			delete(d.works, what)
			d.mu.Unlock()
			close(w.done)
			return w.err
		}
		select {
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, context.Cause(ctx),
				"wait for another VM to %s", what)
		case <-w.done:
		}
		if w.err == nil {
			return nil
		}
	}
}
