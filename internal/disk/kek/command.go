package kek

import (
	"context"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keycommand"
)

const maxOutput = 64 << 10 // bytes

// Command is a key-encryption key that a command of the operator's has, or knows who has. The shell
// runs it with two more arguments: "wrap" or "unwrap", and the disk's uid. On stdin it gets 32
// secret bytes, or what it made of them; it prints what it makes of that, or fails. It gets a
// minute.
type Command struct{ line string }

// NewCommand returns the key that the shell command line has.
func NewCommand(line string) (*Command, error) {
	if strings.TrimSpace(line) == "" {
		return nil, errs.New(errs.Invalid,
			"an empty key command").WithRemedy("give a command that wraps and unwraps keys")
	}
	return &Command{line: line}, nil
}

// ID returns "command": what key it uses, only the command knows.
func (k *Command) ID() string { return "command" }

// Wrap runs the command with "wrap" and the uid.
func (k *Command) Wrap(ctx context.Context, uid string, secret []byte) ([]byte, error) {
	return k.run(ctx, "wrap", uid, secret)
}

// Unwrap runs the command with "unwrap" and the uid. Denied if it fails.
func (k *Command) Unwrap(ctx context.Context, uid string, wrapped []byte) ([]byte, error) {
	return k.run(ctx, "unwrap", uid, wrapped)
}

func (k *Command) run(ctx context.Context, operation, uid string, in []byte) ([]byte, error) {
	out, said, err := keycommand.Run(ctx, k.line, in, operation, uid)
	switch {
	case keycommand.IsLate(err):
		return nil, errs.Wrap(errs.Unavailable, err, "the key command did not %s in time: %s",
			operation, said)
	case err != nil:
		return nil, errs.Wrap(errs.Denied, err, "the key command refuses to %s: %s",
			operation, said).
			WithRemedy("run it by hand: CMD %s %s", operation, uid)
	case len(out) == 0 || len(out) > maxOutput:
		return nil, errs.New(errs.Denied, "the key command made %d bytes when it was to %s",
			len(out), operation).
			WithRemedy("have it print the result, and nothing else, to stdout")
	}
	return out, nil
}
