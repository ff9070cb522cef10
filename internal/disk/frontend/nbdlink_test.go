package frontend

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestFamiliesAreFoundByName(t *testing.T) {
	// The one that tells of the others is there on each kernel, and has the same number.
	if id, err := genlFamily(nl.GENL_CTRL_NAME); err != nil || id != nl.GENL_ID_CTRL {
		t.Errorf("%s: %d, %v; want %d", nl.GENL_CTRL_NAME, id, err, nl.GENL_ID_CTRL)
	}
	if id, err := genlFamily("sluice-none"); err == nil {
		t.Errorf("a family that isn't there has number %d", id)
	}
	if _, err := openNBDLink(); err != nil && errs.KindOf(err) != errs.Unsupported {
		t.Errorf("a kernel without an NBD client: %v", err)
	}
}

// TestRequestsReadNothingBehindThem has small values of other goroutines lie beside what is sent,
// and come and go. The race detector sees whoever reads beyond it.
func TestRequestsReadNothingBehindThem(t *testing.T) {
	var neighbours, requests sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		neighbours.Go(func() {
			kept := make([]*[16]byte, 512)
			for i := 0; !done.Load(); i++ {
				v := new([16]byte) // of the size class that a header is in
				v[0] = byte(i)
				kept[i*7%len(kept)] = v
				if i%256 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	for range 8 {
		requests.Go(func() {
			for range 200 {
				_, _ = genlFamily(nl.GENL_CTRL_NAME)
			}
		})
	}
	requests.Wait()
	done.Store(true)
	neighbours.Wait()
}
