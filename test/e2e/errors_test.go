package e2e

import (
	"errors"

	"github.com/sluice-platform/sluice/api"
)

func asAPIError(err error, target **api.Error) bool { return errors.As(err, target) }
