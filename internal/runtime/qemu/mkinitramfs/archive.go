package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	modeFile = 0o100000
	modeDir  = 0o040000
	modeChar = 0o020000
	modeLink = 0o120000
)

// archive is a cpio archive in the form that the kernel unpacks ("newc"), owned by root, of no
// time.
type archive struct {
	bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode, major, minor int, content []byte) {
	a.inode++
	links := 1
	if mode&modeDir != 0 {
		links = 2
	}
	fmt.Fprintf(a, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, 0, 0, links, 0, len(content), 0, 0, major, minor, len(name)+1, 0, name)
	a.pad()
	a.Write(content)
	a.pad()
}

func (a *archive) pad() { a.Write(make([]byte, -a.Len()&3)) }

// addTree adds the directories, files and links below root, in the order of their names.
func (a *archive) addTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		mode, content := modeDir, []byte(nil)
		switch {
		case e.Type() == fs.ModeSymlink:
			var target string
			target, err = os.Readlink(path)
			mode, content = modeLink, []byte(target)
		case e.Type().IsRegular():
			content, err = os.ReadFile(path)
			mode = modeFile
		case !e.IsDir():
			err = fmt.Errorf("%s is no file, directory or link", path)
		}
		if err != nil {
			return err
		}
		a.add(name, mode|int(info.Mode().Perm()), 0, 0, content)
		return nil
	})
}

func (a *archive) end() { a.add("TRAILER!!!", 0, 0, 0, nil) }
