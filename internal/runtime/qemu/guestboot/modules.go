package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModules loads the modules that dir/load names, one per line, each after those that it needs.
func loadModules(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "load"))
	if err != nil {
		return fmt.Errorf("read list of modules: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		err = nil // built into this kernel, or loaded already
	}
	// Its memory is not needed any more.
	return errors.Join(err, f.Close(), os.Remove(path))
}
