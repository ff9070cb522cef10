// Command sluice-init is what runs inside a VM: PID 1 (init, the default), blockd, platformd, and
// the PID 1 of the inner container (container-init), by its first argument; and, for a moment, what
// that starts under a limit (container-limit). Configuration and wiring only.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/platform/blockd"
	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/platform/innerinit"
	"github.com/sluice-platform/sluice/internal/platform/machine"
	"github.com/sluice-platform/sluice/internal/platform/ownsync"
	"github.com/sluice-platform/sluice/internal/platform/vminit"
	"github.com/sluice-platform/sluice/internal/x/ioflusher"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

const (
	dir        = "/run/sluice"  // closed to all but root: guestapi.BootFile is there
	machineDir = "/run/machine" // passed through by the container's root on its way to its files
	socket     = dir + "/blockd.sock"
	binary     = "/usr/bin/sluice-init"
	ociRuntime = "/usr/sbin/runc"
)

func main() {
	// Threads that enter other namespaces end with their goroutine. The main thread can't: keep it
	// out.
	runtime.LockOSThread()
	role := "init"
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	if role == innerinit.LimitRole {
		innerinit.Limit(os.Args)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("role", role)
	if err := run(role, log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(role string, log *slog.Logger) error {
	ctx := context.Background()
	if role == "container-init" {
		l, err := innerinit.InheritedListener()
		if err != nil {
			return err
		}
		syncs, err := ownsync.Inherited(innerapi.SyncFD)
		if err != nil {
			return err
		}
		return innerinit.New(innerinit.Config{Log: log, Syncs: syncs}).Run(ctx, l)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	switch role {
	case "init":
		return vminit.New(vminit.Config{Binary: binary, Boot: awaitBoot,
			Broker: diskbroker.Find(), Log: log}).Run(ctx)
	case "blockd":
		return runBlockd(ctx, log)
	case "platformd":
		return runPlatformd(ctx, log)
	}
	return fmt.Errorf("unknown role %q; use init, blockd, platformd or container-init", role)
}

// blockdHeap is how much memory blockd's Go runtime aims to stay within, in bytes: with what the
// kernel needs for it, it fits in guestapi.BlockdMemory. A writer that is faster than the store has
// it hold some 200 MiB, of which little is garbage: writes, what of them is being uploaded, and
// what the store has not shown yet. The map of a disk that is fragmented all over is as much.
const blockdHeap = 320 << 20

func runBlockd(ctx context.Context, log *slog.Logger) error {
	// Before it has many threads, and before it serves what the kernel would have it wait for. The
	// kernel lets only root of the host be marked; elsewhere the cgroups alone keep the machine's
	// dirty memory away.
	if err := ioflusher.Become(); err != nil && diskbroker.Find() == nil {
		log.WarnContext(ctx, "a machine that writes much may hang", "error", err)
	}
	debug.SetMemoryLimit(blockdHeap)
	if err := memcg.EnterBeside(guestapi.BlockdCgroup); err != nil {
		return err
	}
	boot, err := awaitBoot(ctx)
	if err != nil {
		return err
	}
	gateway := fmt.Sprintf("http://[%s%%25%s]:%d", guestapi.HostLinkIP, guestapi.LinkName,
		guestapi.GatewayPort)
	show, err := blockd.ShowBy(boot.FrontEnd, diskbroker.Find(), log)
	if err != nil {
		return err
	}
	engine := blockd.NewEngine(blockd.EngineConfig{GatewayURL: gateway,
		CacheDevice: boot.CacheDevice, Log: log})
	return blockd.New(blockd.Config{Engine: engine, Show: show, Log: log}).Run(ctx, socket)
}

func runPlatformd(ctx context.Context, log *slog.Logger) error {
	l, err := listen(ctx, net.JoinHostPort(guestapi.GuestLinkIP+"%"+guestapi.LinkName,
		strconv.Itoa(guestapi.ControlPort)))
	if err != nil {
		return err
	}
	broker := diskbroker.Find()
	container := inner.Config{Dir: filepath.Join(machineDir, "inner"), Runtime: ociRuntime,
		InitBinary: binary,
		HostLink:   guestapi.LinkName, Broker: broker, Log: log}
	if err := warmUp(ctx, container); err != nil {
		log.WarnContext(ctx, "nothing is made ahead of the boot document", "error", err)
	}
	boot, err := awaitBoot(ctx)
	if err != nil {
		return err
	}
	restarts, err := vminit.Restarts()
	if err != nil {
		return err
	}
	p, err := machine.New(machine.Config{
		Boot: boot, Version: version(boot), Dir: dir, DiskDir: filepath.Join(machineDir, "disk"),
		Block: blockapi.NewClient(socket), Log: log,
		Inner: container, Broker: broker, Restarts: restarts,
	})
	if err != nil {
		return err
	}
	return p.Run(ctx, l)
}

// listen waits for the address: it may take a moment until the link has it.
func listen(ctx context.Context, address string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp6", address)
		if err == nil {
			return l, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// version is what people see of a release: the first digits of its id.
func version(boot guestapi.Boot) string {
	if len(boot.Release) < 12 {
		return "dev"
	}
	return string(boot.Release[:12])
}
