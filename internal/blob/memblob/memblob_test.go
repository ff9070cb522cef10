package memblob_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobtest"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, blobtest.Target{
		Open:     func(*testing.T) blob.Store { return memblob.New() },
		ListSize: 10_000,
	})
}
