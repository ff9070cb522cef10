package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// createFlags are the flags of machine create.
type createFlags struct {
	req          api.CreateMachine
	env          []string
	services     []string
	serviceFile  string
	memory, disk string
	stopTimeout  time.Duration
	limitFiles   bool // --nofile was given
	encrypt      bool
	wait         bool
	timeout      time.Duration
}

const machineCreateHelp = `Create a machine and start it. Its disk is a fork of the image: nothing is copied.

A service is written as key=value pairs, separated by commas: name, cmd (words, with
quotes as in a shell), port (its HTTP port), dir, env=K=V and needs=NAME (both may
come several times), and check: http:/path, http:PORT/path, tcp:PORT, or
exec:command. --service-file takes the same as JSON, in the form of the API: a list
of {"name", "cmd", "http_port", "check", …}.

A service is to run for ever: one that ends, with whatever exit code, is started
again, after a pause that grows up to 10 s. It is ready once its check passes, or
without a check once it has stayed up for 250 ms; one that has ended by itself has
to stay up for longer each time. The machine is healthy while all are ready. A
command that is to run once is one for sluice machine exec.

Programs that read how large the machine is (top, free, most runtimes) are told of
--memory and of --cpus, rounded up. What asks the kernel by itself (nproc) is told of
the worker's processors: set what sizes itself by them (worker counts).
`

func newMachineCreateCommand(d *deps) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME --app APP --network NETWORK",
		Short: "Create a machine and start it",
		Long:  machineCreateHelp + exitTable,
		Example: `  sluice machine create db-1 --app shop --network prod --memory 512MiB
  sluice machine create web-1 --app shop --network prod --env MODE=live \
      --service 'name=web,cmd=busybox httpd -f -p 8080 -h /srv,port=8080,check=http:/'`,
		Args:    exactly("a name"),
		PreRunE: requires("app", "network"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			f.req.Name = args[0]
			f.limitFiles = cmd.Flags().Changed("nofile")
			if cmd.Flags().Changed("encrypt") {
				f.req.Encrypt = &f.encrypt
			}
			return d.createMachine(cmd.Context(), c, &f)
		}),
	}
	f.add(cmd.Flags())
	return cmd
}

func (f *createFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.req.App, "app", "", "app that the machine belongs to (required)")
	fl.StringVar(&f.req.Network, "network", "", "private network that it is in (required)")
	fl.StringVar(&f.req.Config.Image, "image", "base", "image that its disk starts from")
	fl.StringVar(&f.req.Worker, "worker", "",
		"start it on this worker, and on no other until it has come up (default: the best)")
	fl.BoolVar(&f.req.SkipStart, "no-start", false, "only create it")
	fl.StringArrayVar(&f.env, "env", nil, "environment variable K=V; may be repeated")
	fl.StringArrayVar(&f.services, "service", nil, "service to run; may be repeated")
	fl.StringVar(&f.serviceFile, "service-file", "", "file with services as JSON; - for stdin")
	fl.Float64Var(&f.req.Config.CPUs, "cpus", 1, "cores")
	fl.StringVar(&f.memory, "memory", "256MiB", "memory; a bare number is in MiB")
	fl.StringVar(&f.disk, "disk", "",
		"size of the disk; a bare number is in GiB (default: the image's)")
	fl.StringVar(&f.req.Config.StopSignal, "stop-signal", "",
		"signal that asks it to stop (default SIGTERM)")
	fl.DurationVar(&f.stopTimeout, "stop-timeout", 0,
		"time from that signal to SIGKILL, at most 300s (default 5s)")
	addProcessFlags(fl, &f.req.Config)
	fl.StringVar(&f.req.Config.Isolation, "isolation", "",
		"vm: only on workers whose VMs have a kernel of their own, for code of strangers (default: any worker)")
	fl.BoolVar(&f.encrypt, "encrypt", true,
		"encrypt its disk, under a key of its network (default: if the fleet has a key)")
	fl.BoolVar(&f.wait, "wait", true, "wait until it is healthy")
	fl.DurationVar(&f.timeout, "timeout", 2*time.Minute, "longest time to wait")
}

// addProcessFlags adds what goes for each process that is started in a machine.
func addProcessFlags(fl *pflag.FlagSet, c *api.MachineConfig) {
	fl.Int64Var(&c.NoFile, "nofile", 0,
		"limit of open files of its services and commands, 64 to 1048576 (default: the worker's)")
	fl.StringVar(&c.User, "user", "",
		"user of its services and commands, USER or USER:GROUP (default: root)")
	fl.BoolVar(&c.NoNewPrivileges, "no-new-privileges", false,
		"keep its services and commands from getting more rights, as by sudo")
}

func (d *deps) createMachine(ctx context.Context, c *client.Client, f *createFlags) error {
	if err := f.complete(d); err != nil {
		return err
	}
	m, err := c.CreateMachine(ctx, f.req)
	if err != nil {
		return err
	}
	if f.wait && !f.req.SkipStart {
		if m, err = d.waitFor(ctx, f.timeout, c, m, untilHealthy()); err != nil {
			return err
		}
	}
	if m.Disk.Ungrown != "" {
		fmt.Fprintf(d.stderr, "%s: %s\n", m.Name, m.Disk.Ungrown)
	}
	return d.result(m, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %s  %s\n", m.ID, m.Name, stateOf(m), orDash(m.Worker),
			orDash(m.PrivateIP))
		return err
	})
}

// complete turns flags into the request.
func (f *createFlags) complete(d *deps) error {
	if f.req.Config.CPUs <= 0 { // which would mean the default to the server
		return errs.New(errs.Invalid, "cpus %v is not more than 0", f.req.Config.CPUs).
			WithRemedy("ask for 0.001 or more")
	}
	if f.limitFiles && f.req.Config.NoFile == 0 { // which would mean the default to the server
		return errs.New(errs.Invalid, "a limit of 0 open files leaves none").
			WithRemedy("leave --nofile out for the worker's limit")
	}
	env, err := parseEnv(f.env)
	if err != nil {
		return err
	}
	f.req.Config.Env = env
	memory, err := bytesize.Parse(f.memory, 1<<20)
	if err != nil {
		return err
	}
	if memory%(1<<20) != 0 {
		return errs.New(errs.Invalid, "memory %s is not a whole number of MiB", f.memory).
			WithRemedy("write it like 512MiB or 2GiB")
	}
	f.req.Config.MemoryMiB = memory >> 20
	if f.disk != "" {
		size, err := bytesize.Parse(f.disk, 1<<30)
		if err != nil {
			return err
		}
		if size%(1<<30) != 0 {
			return errs.New(errs.Invalid, "disk %s is not a whole number of GiB", f.disk).
				WithRemedy("write it like 10GiB, or leave it out for the image's size")
		}
		f.req.Config.DiskGiB = size >> 30
	}
	f.req.Config.StopTimeout = f.stopTimeout.Seconds()
	for _, s := range f.services {
		service, err := parseService(s)
		if err != nil {
			return err
		}
		f.req.Config.Services = append(f.req.Config.Services, service)
	}
	if f.serviceFile != "" {
		services, err := readServiceFile(d, f.serviceFile)
		if err != nil {
			return err
		}
		f.req.Config.Services = append(f.req.Config.Services, services...)
	}
	return nil
}

func parseEnv(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	env := make(map[string]string, len(pairs))
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, errs.New(errs.Invalid, "environment variable %q is not of the form K=V", p).
				WithRemedy("write it like --env MODE=live")
		}
		env[k] = v
	}
	return env, nil
}
