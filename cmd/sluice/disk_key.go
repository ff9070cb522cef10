package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keyFlags say where a key-encryption key is.
type keyFlags struct{ file, command string }

func (f *keyFlags) given() bool { return f.file != "" || f.command != "" }

// load returns the key, nil if none is named.
func (f *keyFlags) load() (disk.KEK, error) {
	switch {
	case f.file != "" && f.command != "":
		return nil, usageError("the key is in a file or a command has it, not both: %s and %s",
			f.file, f.command)
	case f.file != "":
		return kek.ReadFile(f.file)
	case f.command != "":
		return kek.NewCommand(f.command)
	}
	return nil, nil
}

const keyHelp = `An encrypted disk needs its key: --key-file names a file with 32 bytes, as they are,
in hex or in base64, that only its owner can read; --key-command a command that
wraps and unwraps keys, for a KMS, age or a TPM. The shell runs it with "wrap" or
"unwrap" and the disk's uid as arguments and the bytes on stdin, and it prints the
result. SLUICE_KEY_FILE and SLUICE_KEY_COMMAND do as well.
`

// addKeyFlags lets a command be told the key of the disk that it reads or writes.
func (d *deps) addKeyFlags(cmd *cobra.Command) *cobra.Command {
	addNamedKeyFlags(cmd, &d.key, "", "of an encrypted disk")
	return cmd
}

func addNamedKeyFlags(cmd *cobra.Command, f *keyFlags, prefix, of string) {
	cmd.Flags().StringVar(&f.file, prefix+"key-file", "", "file with the key "+of)
	cmd.Flags().StringVar(&f.command, prefix+"key-command", "",
		"command that wraps and unwraps the key "+of)
}

// diskKey returns the key that flags or the environment name, or nil.
func (d *deps) diskKey() (disk.KEK, error) {
	if d.key.given() {
		return d.key.load()
	}
	env := keyFlags{file: d.env("SLUICE_KEY_FILE"), command: d.env("SLUICE_KEY_COMMAND")}
	return env.load()
}

// keyArgs returns the flags as arguments, for a process that is to do the same in the background.
func (d *deps) keyArgs() []string {
	switch {
	case d.key.file != "":
		if abs, err := filepath.Abs(d.key.file); err == nil {
			return []string{"--key-file", abs}
		}
		return []string{"--key-file", d.key.file}
	case d.key.command != "":
		return []string{"--key-command", d.key.command}
	}
	return nil
}

// newDiskKey returns the key that a new disk is to be encrypted under, nil if it isn't to be.
func (d *deps) newDiskKey(encrypt bool) (disk.KEK, error) {
	if !encrypt {
		if d.key.given() {
			return nil,
				usageError("a key is given, and --encrypt is not: the disk would be in the clear")
		}
		return nil, nil
	}
	key, err := d.diskKey()
	if err == nil && key == nil {
		err = usageError("--encrypt needs a key: --key-file or --key-command")
	}
	return key, err
}

func addEncrypt(cmd *cobra.Command, encrypt *bool) {
	cmd.Flags().BoolVar(encrypt, "encrypt", false,
		"encrypt the disk: AES-256-GCM, under a key of its own that yours wraps")
}

func newDiskRekeyCommand(d *deps) *cobra.Command {
	var next keyFlags
	cmd := &cobra.Command{
		Use:   "rekey URL --new-key-file FILE | --new-key-command CMD",
		Short: "Wrap an encrypted disk's key under another key",
		Long: `Wrap an encrypted disk's key under another key. No data is rewritten, and nobody who
has the disk attached notices. From then on the disk opens with the new key only.
Forks that exist have keys of their own: rekey each. Who has both the old key and an
old copy of the disk's head can still read the disk; if that may be, copy it to a
new encrypted disk by export and import.
` + keyHelp + exitTable,
		Example: `  (umask 077; head -c32 /dev/urandom > new.key)
  sluice disk rekey s3://bucket/disks/data --key-file old.key --new-key-file new.key
  sluice disk rekey s3://bucket/disks/data --key-file old.key --new-key-command /usr/local/bin/kms-wrap`,
		Args: exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := d.rekey(cmd.Context(), args[0], &next)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL, describeKey(&info))
				return err
			})
		},
	}
	addNamedKeyFlags(cmd, &next, "new-", "to wrap it under from now on")
	return d.addKeyFlags(cmd)
}

func (d *deps) rekey(ctx context.Context, url string, next *keyFlags) (api.DiskInfo, error) {
	newKey, err := next.load()
	if err == nil && newKey == nil {
		err = usageError("disk rekey needs --new-key-file or --new-key-command")
	}
	if err != nil {
		return api.DiskInfo{}, err
	}
	old, err := d.diskKey()
	if err != nil {
		return api.DiskInfo{}, err
	}
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer ref.Store.Close()
	if _, err := disk.Rekey(ctx, ref.Store, ref.Path, old, newKey); err != nil {
		if errs.Is(err, errs.NotFound) {
			return api.DiskInfo{}, ref.Explain(ctx, err)
		}
		return api.DiskInfo{}, err
	}
	return storedInfo(ctx, ref)
}

// describeKey says how a disk is encrypted, for people.
func describeKey(x *api.DiskInfo) string {
	if x.Cipher == "" {
		return ""
	}
	return fmt.Sprintf("%s, key %d, wrapped by %s", x.Cipher, x.KeyID, x.KEK)
}
