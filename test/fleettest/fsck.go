package fleettest

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/test/fleettest/treesum"
)

// StopFsckStart stops a machine, checks the file system on its closed disk with e2fsck, and starts
// it again.
func (f *Fleet) StopFsckStart(m api.Machine) {
	f.t.Helper()
	if _, err := f.StopMachine(f.t.Context(), m.ID); err != nil {
		f.t.Fatalf("stop %s: %v", m.Name, err)
	}
	f.Eventually(30*time.Second, func() error {
		now, err := f.Machine(f.t.Context(), m.ID)
		if err == nil && now.State != "stopped" {
			err = fmt.Errorf("machine is %s: %s", now.State, now.Reason)
		}
		return err
	})
	f.FsckClosed(m)
	if _, err := f.StartMachine(f.t.Context(), m.ID); err != nil {
		f.t.Fatalf("start %s: %v", m.Name, err)
	}
	f.WaitHealthy(m.ID, 60*time.Second)
}

// FsckClosed reads the disk of a stopped machine from the store and fails the test unless e2fsck,
// which may repair nothing, finds it clean.
func (f *Fleet) FsckClosed(m api.Machine) {
	f.t.Helper()
	f.onClosed(m, func(string) {})
}

// TreeOnClosed does what FsckClosed does, and tells the file tree that is on the disk as treesum
// does.
func (f *Fleet) TreeOnClosed(m api.Machine, except ...string) string {
	f.t.Helper()
	var tree bytes.Buffer
	f.onClosed(m, func(raw string) {
		dir := f.t.TempDir()
		if out, err := exec.CommandContext(f.t.Context(), "mount", "-o", "loop,ro,noload", raw,
			dir).CombinedOutput(); err != nil {
			f.t.Fatalf("mount %s's disk: %v\n%s", m.Name, err, out)
		}
		err := treesum.Write(&tree, dir, except...)
		if out, unmountErr := exec.CommandContext(context.Background(), "umount",
			dir).CombinedOutput(); unmountErr != nil {
			f.t.Errorf("unmount %s's disk: %v\n%s", m.Name, unmountErr, out)
		}
		if err != nil {
			f.t.Fatal(err)
		}
	})
	return tree.String()
}

// onClosed reads the disk of a stopped machine into a file, has it checked, and hands it out until
// use returns.
func (f *Fleet) onClosed(m api.Machine, use func(raw string)) {
	f.t.Helper()
	raw, err := os.CreateTemp(f.t.TempDir(), "disk-*.raw")
	if err != nil {
		f.t.Fatal(err)
	}
	defer os.Remove(raw.Name())
	defer raw.Close()
	if err := f.exportDisk(m, raw); err != nil {
		f.t.Fatalf("read disk of %s: %v", m.Name, err)
	}
	out, err := exec.CommandContext(f.t.Context(), "e2fsck", "-fn", raw.Name()).CombinedOutput()
	if err != nil {
		f.t.Fatalf("e2fsck of %s's disk: %v\n%s", m.Name, err, out)
	}
	use(raw.Name())
}

// DiskKEK returns what opens a machine's disk; nil if it is in the clear.
func (f *Fleet) DiskKEK(ctx context.Context, m api.Machine) (disk.KEK, error) {
	if !m.Encrypted {
		return nil, nil
	}
	k, err := f.MachineDiskKey(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(k.Key)
	if err != nil {
		return nil, err
	}
	return kek.NewRing(key)
}

// exportDisk copies a disk's newest map into a sparse file.
func (f *Fleet) exportDisk(m api.Machine, raw *os.File) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	s, err := f.State()
	if err != nil {
		return err
	}
	for _, kv := range s.StoreEnv {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	pool, path, err := blobs.SplitDiskURL(m.DiskURL)
	if err != nil {
		return err
	}
	store, err := blobs.Open(ctx, pool)
	if err != nil {
		return err
	}
	defer store.Close()
	key, err := f.DiskKEK(ctx, m)
	if err != nil {
		return err
	}
	d, err := disk.OpenReadOnly(ctx, store, path, "", disk.ReadOnlyOptions{Key: key})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := raw.Truncate(d.Size()); err != nil {
		return err
	}
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < d.Size(); off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), d.Size()-off)]
		if err := d.ReadAt(ctx, part, off); err != nil {
			return err
		}
		if bytes.Equal(part, zeros[:len(part)]) {
			continue
		}
		if _, err := raw.WriteAt(part, off); err != nil {
			return err
		}
	}
	return nil
}
