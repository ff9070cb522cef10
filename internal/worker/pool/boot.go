package pool

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/worker/guest"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

const (
	pollMin       = 2 * time.Millisecond
	pollMax       = 50 * time.Millisecond
	probeTimeout  = 2 * time.Second
	removeTimeout = 30 * time.Second
	seedBytes     = 64
	tokenBytes    = 24
	consoleTail   = 2048 // bytes of a console that go into an error
	mostStretch   = 10   // of a start's time on a host under pressure
	// boot timeouts after which a VM that only writes to its console is given up
	mostTalk = 3
)

// VM is a VM of the runtime, with the client of its platform and what the registry keeps of it.
type VM struct {
	runtime.VM
	Entry
	Guest *guest.Client
}

// Attach returns a VM that is already running.
func Attach(vm runtime.VM, e Entry) *VM {
	return &VM{VM: vm, Entry: e, Guest: guest.New(vm, e.ControlToken)}
}

// ID is the VM's id.
func (v *VM) ID() fleet.VMID { return v.VM.ID() }

// boot starts a VM and returns once its platform answers. If it fails it leaves nothing behind. If
// ctx has ended, the VM may be left: it is in the registry, for the next worker to find.
func (p *Pool) boot(ctx context.Context) (*VM, error) {
	entry := Entry{VM: fleet.VMID(NewToken(4)), ControlToken: NewToken(tokenBytes),
		Release: p.cfg.Release}
	cache := ""
	if p.cfg.CacheBytes > 0 {
		cache = runtime.CacheDevice
	}
	boot, err := json.Marshal(guestapi.Boot{
		VM: entry.VM, Release: entry.Release, ControlToken: entry.ControlToken, CacheDevice: cache,
		Seed: randomBytes(seedBytes), WallClock: p.deps.Now(), FrontEnd: p.cfg.FrontEnd,
	})
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode boot document")
	}
	if err := p.deps.Registry.Put(entry); err != nil {
		return nil, errs.Wrap(errs.Unavailable, err,
			"remember VM %s before it is started", entry.VM)
	}
	began := time.Now()
	starting, cancel := context.WithTimeout(ctx,
		patience.Stretch(p.cfg.BootTimeout, p.deps.Share(), mostStretch))
	vm, err := p.deps.Driver.Start(starting, runtime.Spec{
		ID: entry.VM, Release: p.cfg.ReleaseDir, Boot: boot, CacheBytes: p.cfg.CacheBytes,
		Limits: p.cfg.Limits,
	})
	cancel()
	if err != nil {
		return nil, p.bootFailed(ctx, entry, nil,
			errs.Wrap(errs.KindOf(err), err, "start VM %s", entry.VM))
	}
	v := Attach(vm, entry)
	if err := p.awaitAnswer(ctx, v); err != nil {
		v.Guest.Close()
		return nil, p.bootFailed(ctx, entry, vm, err)
	}
	p.log.InfoContext(ctx, "vm booted", "vm_id", entry.VM, "boot_ms",
		time.Since(began).Milliseconds())
	return v, nil
}

func (p *Pool) bootFailed(ctx context.Context, e Entry, vm runtime.VM, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if vm != nil {
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		if err := vm.Remove(quiet); err != nil {
			p.log.ErrorContext(ctx, "remains of a vm that did not boot could not be removed",
				"vm_id", e.VM, "error", err)
			return cause // it stays in the registry: the next worker tries again
		}
	}
	if err := p.deps.Registry.Drop(e.VM); err != nil {
		p.log.WarnContext(ctx, "vm could not be forgotten", "vm_id", e.VM, "error", err)
	}
	return cause
}

// awaitAnswer returns once the VM's platform answers that it is empty. It gives up a VM that is
// silent for the BootTimeout. Output on the console counts as progress, but for three BootTimeouts
// at most, because a VM that fails in a loop writes too.
func (p *Pool) awaitAnswer(ctx context.Context, v *VM) error {
	var last error
	var silent, whole patience.Watch
	said, began := consoleSize(v), time.Now()
	for wait := pollMin; ; wait = min(wait*2, pollMax) {
		h, err := Probe(ctx, v)
		if now := consoleSize(v); now != said {
			said = now
			p.further.Add(1)
		}
		looked, share := time.Now(), p.deps.Share()
		quiet, all := silent.Look(looked, strconv.FormatInt(said, 10), share),
			whole.Look(looked, "", share)
		switch {
		case err == nil && h.State == guestapi.StateEmpty:
			return nil
		case err == nil:
			return errs.New(errs.Internal, "VM %s came up %s, not empty", v.ID(), h.State)
		case ctx.Err() == nil:
			last = err
		}
		if quiet >= p.cfg.BootTimeout || all >= mostTalk*p.cfg.BootTimeout {
			return errs.Wrap(errs.Unavailable, last, "VM %s did not answer within %s%s", v.ID(),
				time.Since(began).Round(time.Second), ConsoleTail(v))
		}
		select {
		case <-v.Done():
			return errs.New(errs.Unavailable, "VM %s ended while it booted: %s%s", v.ID(),
				v.Status().Exit, ConsoleTail(v))
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for VM %s to answer", v.ID())
		case <-time.After(wait):
		}
	}
}

// consoleSize returns how many bytes a VM has written to its console; 0 if that is not known.
func consoleSize(vm runtime.VM) int64 {
	st, err := os.Stat(vm.ConsolePath())
	if err != nil {
		return 0
	}
	return st.Size()
}

// Probe returns the state of a VM's platform; Unavailable after 2 s.
func Probe(ctx context.Context, v *VM) (guestapi.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return v.Guest.Health(ctx)
}

// ConsoleTail returns the end of a VM's console output, for an error message; "" if there is none.
func ConsoleTail(vm runtime.VM) string {
	f, err := os.Open(vm.ConsolePath())
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, min(st.Size(), consoleTail))
	if _, err := f.ReadAt(buf, st.Size()-int64(len(buf))); err != nil || len(buf) == 0 {
		return ""
	}
	return "; its console ends with: " + strings.TrimSpace(string(buf))
}

// NewToken returns n random bytes as hex digits.
func NewToken(n int) string { return hex.EncodeToString(randomBytes(n)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the process where there is no randomness
	return b
}
