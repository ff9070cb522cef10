package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// 2020-01-01; the creation time of every template, so that equal trees give equal disks
	epoch = "1577836800"

	minSize = 16 << 20 // bytes; below it a journal leaves little for files
)

// journalMB returns the size of the journal. A large one is of no use on a disk whose log is
// elsewhere, and every block of it is uploaded sooner or later.
func journalMB(size int64) int {
	switch {
	case size < 256<<20:
		return 4
	case size < 4<<30:
		return 16
	default:
		return 64
	}
}

// inodes returns how many files a file system is to have room for, or 0 for what mkfs makes of its
// size. A tree of many small files takes more than that, and as many again may be added to it.
func inodes(entries, size int64) int64 {
	const usual = 16 << 10 // bytes for each; mkfs takes fewer for a small file system
	if 2*entries <= size/usual {
		return 0
	}
	return 2*entries + 1024
}

// makeRaw makes a sparse file with an ext4 file system of size bytes that holds the tree. The same
// name, size and tree give the same bytes; the tree's times of access and change belong to it, and
// reading a tree may change the former. It returns what people should know of the tree.
func makeRaw(ctx context.Context, path, name, tree string, size int64) ([]string, error) {
	owners, err := findStrangers(tree)
	if err != nil {
		return nil, err
	}
	shell, err := shellNote(tree)
	if err != nil {
		return nil, err
	}
	err = format(ctx, path, size, frontend.MkfsOptions{
		Label:     label(name),
		UUID:      uuidOf(name),
		Tree:      tree,
		JournalMB: journalMB(size),
		Inodes:    inodes(owners.entries, size),
		Env:       fakeTime(),
	})
	if err != nil {
		return nil, err
	}
	if owners.count > 0 {
		if err := debugfs(ctx, path, owners.script.String()); err != nil {
			return nil, fmt.Errorf("change owners: %w", err)
		}
	}
	notes := slices.DeleteFunc([]string{owners.note(), shell},
		func(s string) bool { return s == "" })
	return notes, dropLeftovers(ctx, path, tree)
}

// format makes a sparse file of size bytes and the file system in it. Exhausted: the tree doesn't
// fit.
func format(ctx context.Context, path string, size int64, fs frontend.MkfsOptions) error {
	f, err := os.Create(path)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a temporary file")
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a sparse file of %d bytes", size)
	}
	if err := frontend.Mkfs(ctx, path, fs); err != nil {
		if s := err.Error(); strings.Contains(s, "Could not allocate") ||
			strings.Contains(s, "No free space") {
			return errs.Wrap(errs.Exhausted, err,
				"the image's tree doesn't fit into %d bytes", size).
				WithRemedy("give it a larger disk")
		}
		return err
	}
	return nil
}

// label returns a name cut to what ext4 has room for.
func label(name string) string { return name[:min(len(name), 16)] }

// uuidOf derives a file system's UUID from the image's name.
func uuidOf(name string) string {
	h := sha256.Sum256([]byte("sluice image " + name))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // version 8, made as one likes
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// fakeTime makes e2fsprogs take the epoch for now. Newer versions take the first variable, older
// ones the second, and e2fsck the third.
func fakeTime() []string {
	return []string{"SOURCE_DATE_EPOCH=" + epoch, "E2FSPROGS_FAKE_TIME=" + epoch,
		"E2FSCK_TIME=" + epoch}
}

// debugfs runs a script on a file system that isn't mounted. It exits with 0 whatever goes wrong,
// so what it says on stderr counts.
func debugfs(ctx context.Context, raw, script string) error {
	cmd := exec.CommandContext(ctx, "debugfs", "-w", "-f", "/dev/stdin", raw)
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(os.Environ(), fakeTime()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "debugfs: %s", strings.TrimSpace(stderr.String()))
	}
	var said []string
	for line := range strings.Lines(stderr.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "debugfs 1.") {
			said = append(said, line)
		}
	}
	if len(said) > 0 {
		return errs.New(errs.Unavailable, "debugfs: %s", strings.Join(said, "; "))
	}
	return nil
}
