package machine

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// makeContainer adopts the container of an earlier platformd, or makes one. If it fails, the VM
// can't be used.
func (p *Platform) makeContainer(ctx context.Context) {
	now, _ := p.status.get()
	if now.Health.State == guestapi.StateReleased {
		return
	}
	start := time.Now()
	c, err := inner.Adopt(ctx, p.cfg.Inner)
	if errs.Is(err, errs.NotFound) {
		if now.ReleaseAsked || now.Health.State.Final() {
			return // an earlier platformd had already ended the machine
		}
		if !now.Health.State.Before(guestapi.StateRunning) {
			p.fail(ctx, errs.New(errs.Unavailable, "the inner container has ended"))
			return
		}
		c, err = inner.Make(ctx, p.cfg.Inner)
		p.took(ctx, "make container", "", start)
	}
	if err != nil {
		if ctx.Err() == nil {
			p.fail(ctx, err)
		}
		return
	}
	p.container.put(c)
}

// bind starts the machine. Each step first finds out what is done already. If a step fails, the
// disk is closed and the VM ends as failed.
func (p *Platform) bind(ctx context.Context, running *errgroup.Group) error {
	now, _ := p.status.get()
	bindable, cancel := p.interrupt.context(ctx)
	defer cancel()
	began := time.Now()
	err := p.bringUp(bindable, *now.Bind)
	if err == nil {
		p.took(ctx, guestapi.StepBringUp, "", began)
		return p.runServices(ctx, running, now)
	}
	if ctx.Err() != nil {
		return nil // platformd is ending; the next one goes on
	}
	if after, _ := p.status.get(); after.ReleaseAsked || after.Health.State.Final() {
		return nil // drive handles that
	}
	p.fail(ctx, err)
	return nil
}

func (p *Platform) bringUp(ctx context.Context, b guestapi.Bind) error {
	c := p.container.peek()
	if c == nil {
		return errs.New(errs.Unavailable, "there is no inner container")
	}
	var device string
	g, attaching := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		device, err = p.attachDisk(attaching, b)
		return err
	})
	g.Go(func() error {
		return p.timed(ctx, guestapi.StepConnect,
			func() error { return c.Connect(b.Address, b.MTU) })
	})
	g.Go(func() error { return c.CheckFiles(b.Config.NoFile) })
	g.Go(func() error { return c.LimitProcesses(b.Config.Resources.Processes()) })
	g.Go(func() error { return c.LimitMemory(b.Config.Resources.MemoryMiB << 20) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.status.update(func(s *saved) { reach(s, guestapi.StateStarting) }); err != nil {
		return err
	}
	if err := p.timed(ctx, guestapi.StepMount,
		func() error { return p.fs.mount(ctx, device) }); err != nil {
		return err
	}
	if err := p.timed(ctx, guestapi.StepGrow,
		func() error { return p.growDisk(ctx, device) }); err != nil {
		return err
	}
	err := p.timed(ctx, guestapi.StepContainer, func() error {
		return c.Enter(ctx, inner.Machine{ID: string(b.Machine), Hostname: string(b.Name),
			Address: b.Address, Disk: p.diskDir()})
	})
	if err != nil {
		return err
	}
	if err := c.ShowOwn(b.Config.Resources); err != nil { // showOwn does so again and again
		p.log.WarnContext(ctx, "the machine sees nothing of its own yet", "error", err)
	}
	return p.fs.setBarriers(true) // from here on, programs rely on acknowledged writes
}

func (p *Platform) attachDisk(ctx context.Context, b guestapi.Bind) (string, error) {
	start := time.Now()
	if err := p.awaitBlockd(ctx); err != nil {
		return "", err
	}
	info, err := p.block.Attach(ctx, blockapi.Attach{Store: b.Store, Generation: b.Generation,
		Holder: p.holder(b)})
	if err != nil {
		return "", err
	}
	p.took(ctx, guestapi.StepAttach, guestapi.StepBringUp, start)
	return info.Device, p.status.update(func(s *saved) {
		setDisk(s, info.Report)
		addBlockSteps(s, guestapi.StepAttach, info.Steps)
	})
}

// holder returns the name under which the disk is attached: the worker and the generation. A second
// VM that the worker starts for the same placement may then take over the disk, and fences the
// first.
func (p *Platform) holder(b guestapi.Bind) string {
	if b.Worker == "" {
		return "vm/" + string(p.cfg.Boot.VM)
	}
	return "worker/" + string(b.Worker)
}
