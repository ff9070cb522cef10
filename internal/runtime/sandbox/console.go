package sandbox

import (
	"errors"
	"io"
	"os"
	"time"
)

const (
	consoleInterval = time.Second
	consoleMax      = 4 << 20   // bytes at which a console file is cut
	consoleKept     = 512 << 10 // newest bytes kept in the file beside it
)

// console bounds a VM's console file. The VM appends to it through its own descriptor, so it is cut in place;
// what the VM writes between the copy and the cut is lost. Nothing bounds it while no worker runs.
type console struct{ path string }

func (c console) bound() (err error) {
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil || st.Size() <= consoleMax {
		return err
	}
	old, err := os.OpenFile(c.path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, io.NewSectionReader(f, st.Size()-consoleKept, consoleKept))
	return errors.Join(err, old.Close(), f.Truncate(0))
}
