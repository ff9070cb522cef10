package seal

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyfile"
)

const (
	commandTimeout = time.Minute
	commandExit    = 2 * time.Second // between being told to end and being ended
	maxComplaint   = 512             // bytes of its stderr in an error
)

// Sources say where the fleet's keys are, newest first: all files before all commands.
type Sources struct {
	Files    []string // key files, as keyfile.Read has them
	Commands []string // command lines for the shell, that each print a key
}

// Load returns the fleet's keys; nil if no source is named.
func (s Sources) Load(ctx context.Context) (*Keyring, error) {
	var keys [][keyfile.Len]byte
	for _, file := range s.Files {
		k, err := keyfile.Read(file)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	for _, line := range s.Commands {
		k, err := runKeyCommand(ctx, line)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	return New(keys...)
}

// runKeyCommand returns the key that a command prints, for a KMS, age or a TPM. It gets a minute.
func runKeyCommand(ctx context.Context, line string) (key [keyfile.Len]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// all that the shell has started
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = commandExit
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	said := strings.TrimSpace(stderr.String())
	said = said[:min(len(said), maxComplaint)]
	switch {
	case ctx.Err() != nil:
		return key, errs.Wrap(errs.Unavailable, ctx.Err(),
			"the fleet key command did not print the key in time: %s", said).
			WithRemedy("run it by hand; it must end within %v", commandTimeout)
	case err != nil:
		return key, errs.Wrap(errs.Denied, err, "the fleet key command fails: %s", said).
			WithRemedy("run it by hand; it must print the key, and exit with 0")
	}
	key, ok := keyfile.Parse(out)
	if !ok {
		return key, errs.New(errs.Invalid,
			"the fleet key command printed %d bytes, which are no key of 32 bytes", len(out)).
			WithRemedy("have it print 32 bytes, as they are, in hex or in base64, and nothing else")
	}
	return key, nil
}
