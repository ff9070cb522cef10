package control

import (
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// checkCreate refuses a request that can never be met, whatever the state of the fleet's workers.
func (c *Control) checkCreate(req fleet.CreateMachine) error {
	for _, n := range [][2]string{{"machine", string(req.Name)}, {"app", string(req.App)},
		{"network", string(req.Network)}} {
		if err := fleet.CheckName(n[0], n[1]); err != nil {
			return err
		}
	}
	image, ok := c.records.Images.Get(req.Config.Image)
	if !ok {
		return noImage(req.Config.Image)
	}
	if err := c.fits(req.Config.Resources); err != nil {
		return err
	}
	if err := req.Config.Validate(); err != nil {
		return err
	}
	if d := req.Config.DiskGiB; d > 0 && d<<30 < image.Val.SizeBytes {
		return errs.New(errs.Invalid, "a disk of %d GiB is smaller than image %s", d,
			image.Val.Name).
			WithRemedy("ask for at least %d GiB", (image.Val.SizeBytes+1<<30-1)>>30)
	}
	return nil
}

func noImage(name fleet.ImageName) error {
	return errs.New(errs.NotFound, "there is no image %q", name).
		WithRemedy("list them with sluice image list, or make it: sluice image create %s --from …",
			orName(name))
}

func orName(name fleet.ImageName) string {
	if name == "" {
		return "NAME"
	}
	return string(name)
}
