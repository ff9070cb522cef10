package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskFsckCommand(d *deps) *cobra.Command {
	var data, garbage, noPin bool
	cmd := &cobra.Command{
		Use:   "fsck URL",
		Short: "Check what is stored of a disk, without changing it",
		Long: `Check a disk's head, checkpoints, maps, the headers of all segments that those refer
to, and the log that an attach would replay: every checksum, every reference, and
that live counts are exact. With --data every stored frame is read, decrypted and
decompressed too. Of an encrypted disk whose key isn't given all checksums are
checked, and all references; which blocks are mapped and what decrypts is not, and
it says so. Objects that nothing can reach, forks included, are counted.

Nothing of the disk is ever written, and beside it only a pin, which keeps
collectors from what is being checked until it is done. It is about the disk as an
object; for the file system on it there is e2fsck. On a disk that is being written,
what its writer is just writing is counted as in flight.
` + keyHelp + exitTable + `
Damage is exit status 1; so is whatever else fails without a code of its own.`,
		Example: "  sluice disk fsck s3://bucket/disks/data\n  sluice disk fsck s3://bucket/disks/data --data --json",
		Args:    exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := d.fsck(cmd.Context(), args[0],
				fsck.Options{Data: data, Unpinned: noPin}, garbage)
			if err != nil {
				return err
			}
			if err := d.result(r, func(w io.Writer) error { return printFsck(w, r) }); err != nil {
				return err
			}
			if r.DamageCount > 0 {
				return errs.New(errs.Corrupt, "disk %s is damaged in %d places", args[0],
					r.DamageCount).
					WithRemedy(
						"read what can be read: sluice disk export, of the disk or of its checkpoints")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&data, "data", false, "read all the data too")
	cmd.Flags().BoolVar(&noPin, "no-pin", false,
		"write nothing to the store: what a collector deletes meanwhile is called damage")
	cmd.Flags().BoolVar(&garbage, "list-unreachable", false,
		"name each unreachable object on stderr")
	return d.addKeyFlags(cmd)
}

func (d *deps) fsck(ctx context.Context, url string, o fsck.Options,
	garbage bool) (*fsck.Report, error) {
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return nil, err
	}
	defer ref.Store.Close()
	bar := d.newDiskBar(ctx, "checking", countsObjects)
	key, err := d.diskKey()
	if err != nil {
		return nil, err
	}
	o.Progress, o.Key, o.OpenLog = bar.set, key, openLog
	if garbage {
		o.Garbage = func(key string, size int64) {
			fmt.Fprintf(d.stderr, "unreachable: %s (%s)\n",
				key, byteCount(size))
		}
	}
	r, err := fsck.Check(ctx, ref.Store, ref.Path, o)
	bar.end()
	if err != nil {
		return nil, ref.Explain(ctx, err)
	}
	return r, nil
}

func printFsck(w io.Writer, r *fsck.Report) error {
	garbage := r.Garbage()
	fields := [][2]string{
		{"State", r.State}, {"Epoch", fmt.Sprint(r.Epoch)}, {"Size", byteCount(r.SizeBytes)},
		{"Mapped", byteCount(r.MappedBytes)},
		{"Checked",
			fmt.Sprintf("%d map roots, %d pages, %d segments, %d frames, %d log objects, %d fences",
				r.Roots, r.Pages, r.Segments, r.Frames, r.LogObjects, r.Fences)},
		{"Checkpoints", fmt.Sprint(r.Checkpoints)}, {"Forks", fmt.Sprint(r.Forks)},
		{"Pins", fmt.Sprint(r.Pins)},
		{"Objects", fmt.Sprintf("%d of its own, %s", r.Own.Objects, byteCount(r.Own.Bytes))},
		{"Unreachable", fmt.Sprintf("%d objects, %s", garbage.Objects, byteCount(garbage.Bytes))}}
	for _, kind := range slices.Sorted(maps.Keys(r.Unreachable)) {
		t := r.Unreachable[kind]
		fields = append(fields, [2]string{"  " + kind,
			fmt.Sprintf("%d objects, %s", t.Objects, byteCount(t.Bytes))})
	}
	if r.InFlight.Objects > 0 {
		fields = append(fields, [2]string{"In flight",
			fmt.Sprintf("%d objects, %s", r.InFlight.Objects, byteCount(r.InFlight.Bytes))})
	}
	if r.LogStore != "" {
		fields = append(fields, [2]string{"Log store", r.LogStore})
	}
	if r.Cipher != "" {
		fields = append(fields, [2]string{"Encryption", r.Cipher})
	}
	if r.Locked > 0 {
		fields = append(fields, [2]string{"Locked",
			fmt.Sprintf(
				"%d pages, headers and frames: without their key only checksums were checked",
				r.Locked)})
	}
	fields = append(fields, [2]string{"Damage", fmt.Sprint(r.DamageCount)})
	fmt.Fprintf(w, "Disk: %s\n", r.Path)
	if err := printFields(w, fields); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for _, f := range r.Damage {
		fmt.Fprintf(w, "damaged: %s: %s\n", f.Object, f.Detail)
	}
	return nil
}
