package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/devfleet"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
)

// newDevCommand is a whole fleet on this machine.
func newDevCommand(d *deps) *cobra.Command {
	cmd := newNoun("dev", "A whole fleet on this machine, for development and tests",
		newDevUpCommand(d), newDevDownCommand(d), newDevStatusCommand(d),
		newDevHostCommand(d, "kill",
			"Pull a worker's plug: its daemon, its VMs and its network end at once",
			(*devfleet.Fleet).Kill),
		newDevHostCommand(d, "kill-daemon", "Kill a worker's daemon alone; its VMs go on",
			(*devfleet.Fleet).KillDaemon),
		newDevHostCommand(d, "start", "Start a killed worker again", (*devfleet.Fleet).Start),
		newDevHostCommand(d, "cut",
			"Pull a worker's network cable; a store in a directory stays within its reach",
			withoutContext((*devfleet.Fleet).Cut)),
		newDevHostCommand(d, "heal", "Put the cable back", withoutContext((*devfleet.Fleet).Heal)),
		newDevHostCommand(d, "pause", "Stop a worker's daemon where it is",
			withoutContext((*devfleet.Fleet).Pause)),
		newDevHostCommand(d, "resume", "Let a paused daemon go on",
			withoutContext((*devfleet.Fleet).Resume)))
	cmd.Long = `A fleet on this machine: a server with its own state, and workers as processes in
network namespaces of their own, each with its own address, data directory and link
on a bridge, so that a worker can be killed, cut off or paused like a host. Several
fleets may run side by side, each in its directory.`
	return cmd
}

func withoutContext(do func(*devfleet.Fleet,
	string) error) func(*devfleet.Fleet, context.Context, string) error {
	return func(f *devfleet.Fleet, _ context.Context, worker string) error { return do(f, worker) }
}

// devFleet opens the fleet that --dir or SLUICE_DIR names.
func (d *deps) devFleet() (*devfleet.Fleet, error) {
	dir := d.dir
	if dir == "" {
		dir = d.env("SLUICE_DIR")
	}
	if dir == "" {
		return nil, usageError("no fleet is named: give --dir, or set SLUICE_DIR")
	}
	return devfleet.Open(dir, d.logger(slog.LevelWarn))
}

func (d *deps) note(what string) { fmt.Fprintln(d.stderr, "  "+what) }

func newDevUpCommand(d *deps) *cobra.Command {
	var cfg devfleet.Config
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring up a fleet, or what is missing of it",
		Long: `Bring up a fleet on this machine, or what is missing of it: repeating it changes
nothing that runs. Needs root. The store is a directory of the fleet's own unless
--store names one; "s3" starts an S3 server for the fleet.
` + exitTable,
		Example: `  sluice dev up --dir /var/tmp/fleet --workers 3
  export SLUICE_DIR=/var/tmp/fleet
  sluice worker list`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := d.devFleet()
			if err != nil {
				return err
			}
			if _, err := frontend.ParseKind(cmp.Or(cfg.FrontEnd,
				string(frontend.Auto))); err != nil {
				return err
			}
			if err := completeDevConfig(&cfg); err != nil {
				return err
			}
			if err := f.Up(cmd.Context(), cfg, d.note); err != nil {
				return err
			}
			return d.printDevStatus(f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&cfg.Workers, "workers", 3, "number of workers")
	flags.StringVar(&cfg.Store, "store", "",
		`store URL; "s3" for an S3 server of the fleet's own (default a directory in --dir)`)
	flags.StringVar(&cfg.S3Server, "s3-server", "versitygw", `S3 server for --store s3`)
	flags.StringVar(&cfg.Runtime, "runtime", "sandbox",
		"what VMs are made of: sandbox, qemu, or mixed for workers of both kinds by turns")
	flags.StringVar(&cfg.FrontEnd, "guest-frontend", "",
		"how VMs of qemu workers get their disks: auto, nbd or fuse (default auto)")
	flags.StringVar(&cfg.Release, "release", "",
		"directory of a release of the platform (default beside this command)")
	flags.IntVar(&cfg.Pool, "pool", 2, "empty VMs that each worker keeps ready")
	flags.IntVar(&cfg.CPUs, "cpus", 8, "cores that each worker claims to have")
	flags.IntVar(&cfg.MemoryMiB, "memory", 8192, "memory that each worker claims to have, MiB")
	flags.IntVar(&cfg.CacheMiB, "cache-mib", 256, "disk cache of each VM, MiB, sparse")
	flags.StringVar(&cfg.OTLP, "otlp-endpoint", "",
		"collector of OpenTelemetry, within the workers' reach, to send traces of moves to")
	flags.StringArrayVar(&cfg.Args, "server-arg", nil, "one more argument of the server; repeat it")
	flags.StringArrayVar(&cfg.WorkerArgs, "worker-arg", nil,
		"one more argument of each worker; repeat it")
	return cmd
}

// completeDevConfig finds this command and the release beside it.
func completeDevConfig(cfg *devfleet.Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this command: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return fmt.Errorf("find this command: %w", err)
	}
	cfg.Binary = self
	if cfg.Release == "" {
		cfg.Release = filepath.Join(filepath.Dir(self), "release")
	}
	// The directory's own name is the release's identity; "release" is but a pointer to the newest.
	if cfg.Release, err = filepath.Abs(cfg.Release); err != nil {
		return fmt.Errorf("find the release: %w", err)
	}
	if real, err := filepath.EvalSymlinks(cfg.Release); err == nil {
		cfg.Release = real
	}
	return nil
}

func newDevDownCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop a fleet and remove all that it made on this machine, its directory and store included",
		Long: `Stop a fleet and remove all of it: processes, VMs, mounts, network, cgroups, its
directory, and with that a store inside it. It works after a crash of anything, too.
A store elsewhere is left alone.
` + exitTable,
		Example: "  sluice dev down --dir /var/tmp/fleet",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := d.devFleet()
			if err != nil {
				return err
			}
			return f.Down(cmd.Context(), func(runtime, dir,
				cgroups string) (devfleet.Driver, error) {
				return openRuntime(runtime, dir, cgroups, d.logger(slog.LevelWarn))
			}, d.note)
		},
	}
}

func newDevStatusCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the fleet's processes and addresses",
		Long:    "Show the processes and addresses of a fleet on this machine." + exitTable,
		Example: "  sluice dev status --dir /var/tmp/fleet --json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			f, err := d.devFleet()
			if err != nil {
				return err
			}
			return d.printDevStatus(f)
		},
	}
}

func newDevHostCommand(d *deps, verb, short string,
	do func(*devfleet.Fleet, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " WORKER",
		Short:   short,
		Long:    short + "." + exitTable,
		Example: "  sluice dev " + verb + " w1 --dir /var/tmp/fleet",
		Args:    exactly("a worker"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := d.devFleet()
			if err != nil {
				return err
			}
			return do(f, cmd.Context(), args[0])
		},
	}
}
