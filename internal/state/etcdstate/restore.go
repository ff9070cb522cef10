package etcdstate

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// revisionBump is how far a restored state's revisions lie beyond the snapshot's: more than were
// ever written between the snapshot and its restore, so none is handed out twice and no old watch
// resumes.
const revisionBump = 1_000_000_000

// Restore makes a data directory for Start from a snapshot. Keys and their revisions are
// the snapshot's; every watch from before must list again. Error kinds: Conflict where dir already
// holds a state or is in use, Corrupt where the snapshot fails its checksum. After an error, or a
// crash, dir holds no state.
func Restore(dir string, r io.Reader) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.Wrap(errs.Invalid, err, "make the state directory")
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if _, err := os.Lstat(memberDir(dir)); !errors.Is(err, os.ErrNotExist) {
		return errs.New(errs.Conflict, "%s already holds a state", dir).
			WithRemedy("restore into an empty directory, and move this one away first")
	}
	work := filepath.Join(dir, "restoring")
	if err := os.RemoveAll(work); err != nil { // of a restore that crashed
		return errs.Wrap(errs.Internal, err, "clear %s", work)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.Mkdir(work, 0o700); err != nil {
		return errs.Wrap(errs.Internal, err, "make %s", work)
	}
	file, made := filepath.Join(work, "snapshot"), filepath.Join(work, "etcd")
	if err := spool(file, r); err != nil {
		return err
	}
	if err := rebuild(file, made); err != nil {
		return err
	}
	return publish(made, dir)
}

func spool(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "spool the snapshot")
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return errs.Wrap(errs.Unavailable, err, "spool the snapshot")
	}
	return nil
}

// rebuild runs etcd's own restore, which panics on some snapshots that are not whole.
func rebuild(file, made string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errs.New(errs.Corrupt, "read the snapshot: %s", fmt.Sprint(r))
		}
	}()
	err = snapshot.NewV3(newZapLogger(slog.New(slog.DiscardHandler))).Restore(
		snapshot.RestoreConfig{
			SnapshotPath: file, OutputDataDir: made,
			Name: memberName, PeerURLs: []string{memberURL},
			InitialCluster: memberName + "=" + memberURL, InitialClusterToken: "etcd-cluster",
			RevisionBump: revisionBump, MarkCompacted: true,
		})
	if err != nil {
		return errs.Wrap(errs.Corrupt, err, "read the snapshot").
			WithRemedy("use another snapshot; this one is cut short or damaged")
	}
	return nil
}

// publish makes the rebuilt directory the state, in one step that a crash can't tear.
func publish(made, dir string) error {
	if err := os.Rename(made, memberDir(dir)); err != nil {
		return errs.Wrap(errs.Internal, err, "put the restored state in place")
	}
	d, err := os.Open(dir)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "sync %s", dir)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return errs.Wrap(errs.Internal, err, "sync %s", dir)
	}
	return nil
}
