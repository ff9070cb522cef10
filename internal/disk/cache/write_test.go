package cache

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is inserted leaves no dirty page behind, from wherever in memory it comes.
func TestInsertsGoAroundThePageCache(t *testing.T) {
	c, name := open(t, 64*SlotSize)
	if c.direct == nil {
		t.Fatalf("%s is on a file system without direct writes", filepath.Dir(name))
	}
	odd := make([]byte, SlotSize+8)[8:]
	copy(odd, content(1, SlotBlocks))
	c.Insert(key(1), odd)
	c.Insert(key(2), content(2, 1), odd[:BlockSize])
	if got := resident(t, name); got != 0 {
		t.Errorf("%d pages of the cache are in memory after writes alone", got)
	}
	if c.refused.Load() {
		t.Error("a direct write was refused")
	}
	p := make([]byte, SlotSize)
	if !c.ReadAt(key(1), p, 0) || !bytes.Equal(p, odd) {
		t.Error("another content")
	}
	if got := resident(t, name); got == 0 {
		t.Error("this can't see pages in memory")
	}
}

// A device that refuses direct writes is written to all the same.
func TestDirectWritesRefused(t *testing.T) {
	c, _ := open(t, 4*SlotSize)
	_ = c.direct.Close()
	var err error
	// takes numbers only: EINVAL
	if c.direct, err = os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	c.Insert(key(1), content(1, 3))
	p := make([]byte, 3*BlockSize)
	if !c.ReadAt(key(1), p, 0) || !bytes.Equal(p, content(1, 3)) {
		t.Error("not there")
	}
}

// resident counts the pages of a file that are in the page cache.
func resident(t *testing.T, name string) int {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	pages := make([]byte, (len(mem)+4095)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])),
		uintptr(len(mem)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}
