package inner

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// nsFile opens one of a process's namespaces.
func nsFile(pid int, name string) (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + name)
	if err != nil {
		return nil, fmt.Errorf("open %s namespace of the container: %w", name, err)
	}
	return f, nil
}

// within runs fn on a thread that has entered the named namespaces of process pid ("mnt", "uts",
// "net"), which no other goroutine ever sees: the thread ends with fn.
func within(pid int, names []string, fn func() error) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, name := range names {
		f, err := nsFile(pid, name)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread() // never unlocked: the runtime throws the thread away
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare a thread: %w", err)
		}
		for i, f := range files {
			if err := unix.Setns(int(f.Fd()), 0); err != nil {
				return fmt.Errorf("enter the container's %s namespace: %w", names[i], err)
			}
		}
		return fn()
	})
	return g.Wait()
}
