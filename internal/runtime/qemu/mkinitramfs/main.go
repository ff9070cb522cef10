// Command mkinitramfs makes the initramfs of qemu VMs: one program as /init, and the kernel modules
// named on the command line with those that they need, in the order in which they are to be loaded.
// With -add, also a directory's files.
//
// Invariant: the same input gives the same bytes.
package main

import (
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	initFile := flag.String("init", "", "the program that becomes /init")
	modules := flag.String("modules", "", "directory of the kernel's modules")
	add := flag.String("add", "", "directory whose files are added, at their places below it")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*initFile, *modules, *add, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mkinitramfs:", err)
		os.Exit(1)
	}
}

func run(initFile, modulesDir, added, out string, names []string) error {
	program, err := os.ReadFile(initFile)
	if err != nil {
		return err
	}
	files, err := findModules(modulesDir)
	if err != nil {
		return err
	}
	l := loader{files: files, done: map[string]bool{}}
	for _, name := range names {
		if err := l.add(name); err != nil {
			return err
		}
	}
	var a archive
	for _, dir := range []string{"dev", "proc", "sys", "modules", "newroot", "release"} {
		a.add(dir, modeDir|0o755, 0, 0, nil)
	}
	a.add("dev/console", modeChar|0o600, 5, 1, nil)
	a.add("dev/null", modeChar|0o666, 1, 3, nil)
	a.add("init", modeFile|0o755, 0, 0, program)
	var load strings.Builder
	for i, name := range l.order {
		a.add("modules/"+name+".ko", modeFile|0o644, 0, 0, l.content[i])
		load.WriteString(name + ".ko\n")
	}
	a.add("modules/load", modeFile|0o644, 0, 0, []byte(load.String()))
	if added != "" {
		if err := a.addTree(added); err != nil {
			return err
		}
	}
	a.end()
	return os.WriteFile(out, a.Bytes(), 0o644) //nolint:gosec // not a secret
}

// findModules returns the file of each module by its name, as the kernel writes it.
func findModules(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok &&
			err == nil && !e.IsDir() {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	return files, err
}

// loader puts modules into an order in which each comes after those that it needs.
type loader struct {
	files   map[string]string
	done    map[string]bool
	order   []string
	content [][]byte
}

func (l *loader) add(name string) error {
	name = strings.ReplaceAll(name, "-", "_")
	if l.done[name] {
		return nil
	}
	l.done[name] = true
	path, ok := l.files[name]
	if !ok {
		return fmt.Errorf("the kernel has no module %s", name)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	needs, err := needsOf(content)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	for _, n := range needs {
		if err := l.add(n); err != nil {
			return err
		}
	}
	l.order, l.content = append(l.order, name), append(l.content, content)
	return nil
}

// needsOf reads the names of the modules that a module uses.
func needsOf(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	info := f.Section(".modinfo")
	if info == nil {
		return nil, fmt.Errorf("it has no section .modinfo")
	}
	data, err := info.Data()
	if err != nil {
		return nil, err
	}
	for _, line := range bytes.Split(data, []byte{0}) {
		if list, ok := bytes.CutPrefix(line, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
