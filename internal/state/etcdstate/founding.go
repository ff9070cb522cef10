package etcdstate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A member that is killed during its very first start can leave a log that names no member, from
// which it starts again but never elects itself. The founding mark tells such a start from one that
// once was ready: it is made before the first start and removed before Start returns for the first
// time. What lies under the mark was never used by anybody, and is thrown away.

func foundingMark(dir string) string { return filepath.Join(dir, "founding") }

// beginFounding makes dir ready for a start: it throws a half-founded member away, and marks a new
// one.
func beginFounding(dir string) error {
	_, err := os.Lstat(foundingMark(dir))
	switch {
	case err == nil:
		if err := os.RemoveAll(memberDir(dir)); err != nil {
			return errs.Wrap(errs.Internal, err, "throw a half-founded state away")
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return errs.Wrap(errs.Internal, err, "look for the founding mark")
	}
	if _, err := os.Lstat(memberDir(dir)); !errors.Is(err, fs.ErrNotExist) {
		return nil // founded long ago, or restored
	}
	if err := atomicfile.Write(foundingMark(dir), nil, 0o600); err != nil {
		return errs.Wrap(errs.Internal, err, "mark a new state")
	}
	return nil
}

// endFounding says that the member was ready: from here on what it holds is never thrown away.
func endFounding(dir string) error {
	if err := os.Remove(foundingMark(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return errs.Wrap(errs.Internal, err, "remove the founding mark")
	}
	d, err := os.Open(dir)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "open the state directory")
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return errs.Wrap(errs.Internal, err, "sync the state directory")
	}
	return nil
}
