package fleettest

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/client"
)

// dumpLines is how many lines a failed test tells of each log.
const dumpLines = 40

// dump tells what a failed test's fleet looks like: the logs of its daemons and VMs, and its
// machines.
func (f *Fleet) dump() {
	f.dumpLogs()
	if f.Client != nil {
		f.dumpMachines()
	}
}

func (f *Fleet) dumpLogs() {
	// The patterns are well-formed.
	logs, _ := filepath.Glob(filepath.Join(f.cfg.Dir, "log", "*.log"))
	consoles, _ := filepath.Glob(filepath.Join(f.cfg.Dir, "workers", "*", "*", "*", "console.log"))
	for _, file := range append(logs, consoles...) {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		f.t.Logf("--- %s (last lines)\n%s", strings.TrimPrefix(file, f.cfg.Dir), lastLines(lines))
	}
}

// dumpMachines tells what each machine says of itself, its services, its disk and its log.
func (f *Fleet) dumpMachines() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	machines, err := f.Machines(ctx, client.MachineFilter{})
	if err != nil {
		f.t.Logf("--- machines: %v", err)
		return
	}
	for _, m := range machines {
		services, servicesErr := f.Services(ctx, m.ID)
		stats, statsErr := f.MachineDiskStats(ctx, m.ID)
		f.t.Logf("--- machine %s\n%s\nservices (%v)\n%s\ndisk (%v)\n%s\nlog\n%s", m.Name, inJSON(m),
			servicesErr, inJSON(services), statsErr, inJSON(stats), f.machineLog(ctx, m.ID))
	}
}

func (f *Fleet) machineLog(ctx context.Context, ref string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	log, err := f.Logs(ctx, ref, client.LogOptions{Lines: dumpLines})
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		return string(text) + err.Error()
	}
	return string(text)
}

func lastLines(lines []string) string {
	return strings.Join(lines[max(0, len(lines)-dumpLines):], "\n")
}

func inJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
