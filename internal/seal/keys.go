package seal

import (
	"context"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keycommand"
	"github.com/sluice-platform/sluice/internal/x/keyfile"
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
	out, said, err := keycommand.Run(ctx, line, nil)
	switch {
	case keycommand.IsLate(err):
		return key, errs.Wrap(errs.Unavailable, err,
			"the fleet key command did not print the key in time: %s", said).
			WithRemedy("run it by hand; it must end within %v", keycommand.Limit)
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
