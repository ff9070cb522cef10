// Command torture is what tests run in machines to use up their memory, disk and processes. Each
// way of it goes on until it is killed, and does again what fails.
//
//	torture write FILE MIB    write a file of that size over and over, removing it in between
//	torture fill FILE         the same, until there is no space left
//	torture fsync FILE N      N writers that append to files of their own, and fsync each time
//	torture map FILE MIB      dirty a mapped file all over
//	torture fork N            start N processes that do nothing, kill them, and again
//	torture sync              call sync all the time
package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pause    = 100 * time.Millisecond // after what failed, and between rounds
	pageSize = 4096
	fsyncs   = 2000 // of one file, then it begins anew
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: torture write|fill|fsync|map|fork|sync …")
	}
	file, n := "", 0
	for _, a := range args[1:] {
		if i, err := strconv.Atoi(a); err == nil {
			n = i
		} else {
			file = a
		}
	}
	switch args[0] {
	case "write":
		return again(func() error { return write(file, int64(n)<<20) })
	case "fill":
		return again(func() error { return write(file, 1<<62) })
	case "fsync":
		for i := range n {
			go func() {
				_ = again(func() error {
					return appendAndSync(fmt.Sprintf("%s.%d", file, i))
				})
			}()
		}
		select {}
	case "map":
		return again(func() error { return dirty(file, int64(n)<<20) })
	case "fork":
		return again(func() error { return fork(n) })
	case "sync":
		return again(func() error {
			unix.Sync()
			return nil
		}) //nolint:forbidigo // what a machine's user may do
	}
	return fmt.Errorf("no way of torture %q", args[0])
}

func again(do func() error) error {
	for said := ""; ; time.Sleep(pause) {
		if err := do(); err != nil && err.Error() != said {
			said = err.Error()
			fmt.Fprintln(os.Stderr, "torture:", err)
		}
	}
}

// page is mostly zeros, so that a store of tests doesn't fill up, and never the same.
func page(p []byte) {
	for i := 0; i < 256; i += 8 {
		r := rand.Uint64()
		for j := range 8 {
			p[i+j] = byte(r >> (8 * j))
		}
	}
}

func write(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer f.Close()
	chunk := make([]byte, 256*pageSize)
	for written := int64(0); written < size; written += int64(len(chunk)) {
		for at := 0; at < len(chunk); at += pageSize {
			page(chunk[at : at+pageSize])
		}
		if _, err := f.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

func appendAndSync(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, pageSize)
	for range fsyncs {
		page(p)
		if _, err := f.Write(p); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func dirty(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(mem) }()
	for range size / pageSize {
		at := rand.Int64N(size/pageSize) * pageSize
		page(mem[at : at+pageSize])
	}
	return unix.Msync(mem, unix.MS_ASYNC)
}

func fork(n int) error {
	var all []*exec.Cmd
	defer func() {
		for _, c := range all {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	for range n {
		c := exec.Command("/bin/busybox", "sleep", "600") //nolint:noctx // killed above
		if err := c.Start(); err != nil {
			return err
		}
		all = append(all, c)
	}
	return nil
}
