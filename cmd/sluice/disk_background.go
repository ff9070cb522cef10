package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// inBackground runs this program once more, in a session of its own, and returns when that has said that it is
// ready, or has ended, which it tells with the same error and exit code.
func (d *deps) inBackground(ctx context.Context, url string, args []string) error {
	ref, err := openDisk(ctx, url)
	if err != nil {
		return err
	}
	reg, path := d.registry(), ref.url
	if err := errors.Join(ref.store.Close(), reg.Prepare()); err != nil {
		return err
	}
	logged, err := os.OpenFile(reg.LogPath(path), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a log")
	}
	defer logged.Close()
	self, err := os.Executable()
	if err != nil {
		return errs.Wrap(errs.Internal, err, "find this program")
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, append(args, "--json")...)
	cmd.Env = append(os.Environ(), "SLUICE_RUN_DIR="+d.env("SLUICE_RUN_DIR"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = logged
	out, err := cmd.StdoutPipe()
	if err != nil {
		return errs.Wrap(errs.Internal, err, "make a pipe")
	}
	if err := cmd.Start(); err != nil {
		return errs.Wrap(errs.Internal, err, "start a process in the background")
	}
	var r attachment.Record
	if err := json.NewDecoder(out).Decode(&r); err == nil {
		return d.result(r, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: %s, logging to %s\n", r.URL, describeAttachment(&r), reg.LogPath(path))
			return errors.Join(err, cmd.Process.Release())
		})
	}
	werr := cmd.Wait()
	said, _ := os.ReadFile(reg.LogPath(path))
	fmt.Fprintf(d.stderr, "%s", bytes.TrimLeft(said, "\n"))
	var exit *exec.ExitError
	if errors.As(werr, &exit) && exit.ExitCode() > 0 {
		return &codedError{code: exit.ExitCode()}
	}
	return errs.New(errs.Internal, "the process in the background has ended: %v", werr)
}
