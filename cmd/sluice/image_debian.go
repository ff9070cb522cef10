package main

import (
	"context"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const sourceDebian = "debian"

func (d *deps) openDebian(context.Context, []string) (*imageSource, error) {
	return nil, errs.New(errs.Unsupported, "this build can't make a Debian tree")
}
