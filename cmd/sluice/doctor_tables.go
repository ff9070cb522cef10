package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/hostnet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Tables of the kernel that all machines of a host share: one that fills such a table harms the
// others.
const (
	pidMaxFile    = "/proc/sys/kernel/pid_max"
	mostPIDs      = 1 << 22 // the most that the kernel takes
	commonMachine = 256     // MiB of the machine that the host is assumed to be full of
)

// checkProcessIDs wants a process id for each process that the machines may start for which this
// host has memory.
func checkProcessIDs(context.Context) (string, error) {
	most, err := readNumber(pidMaxFile)
	if err != nil {
		return "", errs.Wrap(errs.Unsupported, err, "read kernel.pid_max")
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "", errs.Wrap(errs.Internal, err, "ask for this host's memory")
	}
	memory := int64(info.Totalram*uint64(info.Unit)) >> 20 //nolint:gosec // a size of memory
	return judgeProcessIDs(most, memory)
}

func judgeProcessIDs(most, memoryMiB int64) (string, error) {
	each := fleet.Resources{MemoryMiB: commonMachine}.Processes() + guestapi.PlatformProcesses
	machines := max(memoryMiB/commonMachine, 1)
	if need := min(machines*each, mostPIDs); most < need {
		return "", errs.New(errs.Exhausted,
			"kernel.pid_max is %d, and %d machines of %d MiB, for which there is memory, may start %d processes: one of them can keep all others from starting any",
			most, machines, commonMachine, need).
			WithRemedy("sysctl -w kernel.pid_max=%d, and write it to /etc/sysctl.d", mostPIDs)
	}
	return fmt.Sprintf("%d process ids", most), nil
}

// checkNeighbours wants room in the kernel's table of neighbours, which has those of all
// namespaces. Outside of the host's own network namespace it can't be seen.
func checkNeighbours(context.Context) (string, error) {
	for _, s := range hostnet.NeighbourBounds() {
		has, err := readNumber(s.File)
		if errors.Is(err, fs.ErrNotExist) {
			return "can be seen in the host's network namespace only", nil
		}
		if err != nil {
			return "", errs.Wrap(errs.Unsupported, err, "read %s", s.Name)
		}
		if has < s.Least {
			return "", errs.New(errs.Exhausted,
				"%s is %d: a machine can fill the host's table of neighbours, and then nothing new is reached",
				s.Name, has).
				WithRemedy("start a worker, which raises it, or sysctl -w %s=%d", s.Name, s.Least)
		}
	}
	return "large enough", nil
}

func readNumber(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
