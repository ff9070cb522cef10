package fileblob_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobtest"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
)

func openTemp(t *testing.T) blob.Store { return openBench(t) }

func openBench(t testing.TB) blob.Store {
	s, err := fileblob.Open(t.TempDir() + "/store")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, blobtest.Target{Open: openTemp})
}
