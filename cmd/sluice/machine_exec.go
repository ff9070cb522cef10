package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

type execFlags struct {
	tty, noStdin bool
	interactive  bool
	env          []string
	dir          string
}

func newMachineExecCommand(d *deps) *cobra.Command {
	var f execFlags
	var machine string
	var command []string
	cmd := &cobra.Command{
		Use:   "exec [--tty] [--env K=V] [--workdir DIR] MACHINE [--] COMMAND [ARG...]",
		Short: "Run a command in a machine",
		Long: `Run a command in a machine, with this command's stdin, stdout and stderr. Its exit
code becomes this command's. With --tty it gets a terminal of the size of yours.
Flags of this command end where COMMAND begins: what follows is COMMAND's, with or
without -- before it.

It ends with the command. What that has left in the background stays, as with ssh
and docker exec, and may go on writing, which nobody reads; with --tty the terminal
is closed, and what is on it gets HUP, which nohup and setsid keep away. If this
process goes, the command gets HUP, and KILL two seconds later.

A command that the kernel has killed because the machine is out of memory exits with
137, and says so.

Without --tty, INT, TERM, HUP and QUIT are passed on to the command; the second one
cuts the connection.

EXIT STATUS
  that of the command, or:
  125  the command's fate isn't known: the machine can't be reached, or the connection was lost
  126  the command could not be run
  127  there is no such command`,
		Example: `  sluice machine exec web-1 cat /etc/os-release
  sluice machine exec -it web-1 bash
  tar -c site | sluice machine exec web-1 -- tar -x -C /srv`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if machine, command, err = untilCommand(cmd, args); err != nil {
				return err
			}
			if len(command) == 0 {
				return usageError("%s needs a machine and a command", cmd.CommandPath())
			}
			if f.interactive && f.noStdin {
				return usageError("--interactive and --no-stdin exclude each other")
			}
			return nil
		},
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			return d.exec(cmd.Context(), c, machine, command, f)
		}),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().BoolVarP(&f.interactive, "interactive", "i", false,
		"pass on stdin, which is done anyway")
	cmd.Flags().BoolVarP(&f.noStdin, "no-stdin", "n", false, "give the command an empty stdin")
	cmd.Flags().StringArrayVar(&f.env, "env", nil, "environment variable K=V; may be repeated")
	cmd.Flags().StringVar(&f.dir, "workdir", "", "directory to run the command in")
	return cmd
}

// exec runs a command in a machine and turns its end into ours.
func (d *deps) exec(ctx context.Context, c *client.Client, ref string, command []string,
	f execFlags) error {
	if _, err := parseEnv(f.env); err != nil {
		return err
	}
	e := client.Exec{Cmd: command, Env: f.env, Dir: f.dir, TTY: f.tty, Stdout: d.stdout,
		Stderr: d.stderr}
	if !f.noStdin {
		e.Stdin = d.stdin
	}
	// An interrupt is the command's, not ours: see relay.
	ctx, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	control := make(chan api.ExecControl, 8)
	e.Control = control
	if f.tty {
		restore, err := d.rawTerminal(&e)
		if err != nil {
			return err
		}
		defer restore()
	}
	stop := relay(cut, control, terminal(d.stdin), f.tty)
	code, err := c.RunExec(ctx, ref, e)
	stop()
	if err != nil {
		return execFailure(ctx, err)
	}
	if code != 0 {
		return &codedError{code: code}
	}
	return nil
}

// rawTerminal hands the terminal to the command; restore gives it back.
func (d *deps) rawTerminal(e *client.Exec) (restore func(), err error) {
	in := terminal(d.stdin)
	if in == nil {
		return func() {}, nil // a TTY over there without one here is fine: expect scripts do that
	}
	if e.Cols, e.Rows, err = term.GetSize(int(in.Fd())); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "read the size of the terminal")
	}
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make the terminal raw")
	}
	return func() { _ = term.Restore(int(in.Fd()), old) }, nil
}

// errCut says that a signal to this process ended the session.
var errCut = errors.New("cut by a signal")

// oneSignal is how long signals count as one: timeout(1) and a terminal's foreground group send the
// same twice.
const oneSignal = 300 * time.Millisecond

// relay passes signals and window sizes to the command until the returned function is called. With
// a TTY an interrupt comes as a byte of stdin, so that a signal can only be meant for this process.
func relay(cut context.CancelCauseFunc, control chan<- api.ExecControl, tty *os.File,
	isTTY bool) func() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP,
		syscall.SIGQUIT)
	var relaying sync.WaitGroup
	relaying.Go(func() {
		var first time.Time
		for s := range signals {
			m, ok := controlOf(s, tty)
			if !ok {
				continue
			}
			if m.Type == "signal" {
				again := !first.IsZero()
				if isTTY || again && time.Since(first) > oneSignal {
					cut(errCut)
				}
				if isTTY || again {
					continue
				}
				first = time.Now()
			}
			select {
			case control <- m:
			default: // the connection is stuck; a newer size or a second signal will come
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		relaying.Wait()
	}
}

func controlOf(s os.Signal, tty *os.File) (api.ExecControl, bool) {
	if s == syscall.SIGWINCH {
		if tty == nil {
			return api.ExecControl{}, false
		}
		cols, rows, err := term.GetSize(int(tty.Fd()))
		return api.ExecControl{Type: "resize", Rows: rows, Cols: cols}, err == nil
	}
	number, ok := s.(syscall.Signal)
	return api.ExecControl{Type: "signal", Signal: unix.SignalName(number)}, ok
}

// execFailure gives an error of a session its exit code: none may look like the command's own.
func execFailure(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errCut):
		return &codedError{code: exitInterrupted,
			err: fmt.Errorf("the connection was cut; the command may still run")}
	case errors.Is(err, client.ErrNotRun) && errorKind(err) == errs.NotFound:
		return &codedError{code: exitNoCommand, err: err}
	case errors.Is(err, client.ErrNotRun):
		return &codedError{code: exitNotRunnable, err: err}
	default:
		return &codedError{code: exitExecFailed, err: err}
	}
}
