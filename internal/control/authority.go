package control

import (
	"context"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Authority implements fleet.Enrolment.
func (c *Control) Authority(context.Context) (fleet.AuthorityView, error) {
	if err := c.enrols(); err != nil {
		return fleet.AuthorityView{}, err
	}
	v := fleet.AuthorityView{AuthorityState: c.deps.Authority.State()}
	for _, w := range c.records.Workers.All() {
		if who, _ := c.records.Identities.Get(w.Val.ID); who.Val.IsRevoked() {
			continue
		}
		report, _, _ := c.obs.report(w.Val.ID)
		if report != nil && report.Authority == v.Version {
			v.Current = append(v.Current, w.Val.ID)
		} else {
			v.Behind = append(v.Behind, w.Val.ID)
		}
	}
	slices.Sort(v.Current)
	slices.Sort(v.Behind)
	return v, nil
}

// RotateAuthority implements fleet.Enrolment.
func (c *Control) RotateAuthority(ctx context.Context, step string,
	force bool) (fleet.AuthorityView, error) {
	v, err := c.Authority(ctx)
	if err != nil {
		return v, err
	}
	// What the first step makes and the last but one takes away would shut these out.
	if (step == "switch" || step == "finish") && len(v.Behind) > 0 && !force {
		names := make([]string, len(v.Behind))
		for i, w := range v.Behind {
			names[i] = string(w)
		}
		return v, errs.New(errs.Conflict,
			"these workers have not followed the authority's last change: %s",
			strings.Join(names, ", ")).
			WithRemedy("wait until they have: sluice ca show; those that are gone can be left behind with --force, and join anew")
	}
	if err := c.deps.Authority.Rotate(step); err != nil {
		return v, err
	}
	c.AuthorityChanged()
	c.log.InfoContext(ctx, "the fleet's authority is being rotated", "step", step)
	return c.Authority(ctx)
}

// AuthorityChanged tells workers of an authority that is another by now.
func (c *Control) AuthorityChanged() { c.broadcast() }

// authorityVersion is what workers are to follow; "": there is no authority.
func (c *Control) authorityVersion() string {
	if c.deps.Authority == nil {
		return ""
	}
	return c.deps.Authority.State().Version
}
