package main

import (
	"bytes"
	"fmt"
)

const (
	modeFile = 0o100000
	modeDir  = 0o040000
	modeChar = 0o020000
)

// archive is a cpio archive in the form that the kernel unpacks ("newc"), owned by root, of no time.
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

func (a *archive) end() { a.add("TRAILER!!!", 0, 0, 0, nil) }
