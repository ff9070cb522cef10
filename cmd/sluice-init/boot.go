package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/x/backoff"
)

// bootPoll is how often the boot document is looked for. A VM that waits for long is a saved one,
// which does nothing.
const bootPoll = 2 * time.Millisecond

// awaitBoot returns the boot document once it is there.
func awaitBoot(ctx context.Context) (guestapi.Boot, error) {
	var boot guestapi.Boot
	for {
		data, err := os.ReadFile(guestapi.BootFile)
		switch {
		case err == nil:
			if err := json.Unmarshal(data, &boot); err != nil {
				return boot, fmt.Errorf("read boot document: %w", err)
			}
			return boot, nil
		case !errors.Is(err, os.ErrNotExist):
			return boot, fmt.Errorf("read boot document: %w", err)
		}
		if backoff.Sleep(ctx, bootPoll) != nil {
			return boot, fmt.Errorf("wait for the boot document: %w", context.Cause(ctx))
		}
	}
}

// warmUp does what needs no boot document, where there is none yet: it makes the container, which
// platformd then finds as if it had been started again. It is the same in all VMs that are resumed
// from this one, so nothing in it is secret.
func warmUp(ctx context.Context, container inner.Config) error {
	if _, err := os.Lstat(guestapi.BootFile); err == nil {
		return nil
	}
	if _, err := inner.Make(ctx, container); err != nil {
		return err
	}
	return os.WriteFile(guestapi.WarmFile, nil, 0o600)
}
