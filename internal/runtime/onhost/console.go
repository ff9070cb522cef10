package onhost

import (
	"errors"
	"io"
	"os"
	"time"
)

const (
	ConsoleInterval = time.Second // how often a console is to be bounded
	ConsoleMax      = 4 << 20     // bytes at which a console file is cut
	ConsoleKept     = 512 << 10   // newest bytes kept in the file beside it
)

// Console bounds a VM's console file. The VM appends to it through its own descriptor, so it is cut
// in place; what the VM writes between the copy and the cut is lost. Nothing bounds it while no
// worker runs.
type Console struct{ Path string }

// Bound cuts the file if it has grown too long.
func (c Console) Bound() (err error) {
	f, err := os.OpenFile(c.Path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil || st.Size() <= ConsoleMax {
		return err
	}
	old, err := os.OpenFile(c.Path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, io.NewSectionReader(f, st.Size()-ConsoleKept, ConsoleKept))
	return errors.Join(err, old.Close(), f.Truncate(0))
}
