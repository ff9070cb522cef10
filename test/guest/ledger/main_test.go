package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTornEndIsCutAndDamageIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := l.append(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.file.Write(make([]byte, 100)); err != nil { // torn
		t.Fatal(err)
	}
	l.file.Close()
	if l, err = open(path); err != nil || l.last != 10 {
		t.Fatalf("after a torn write: last %d, %v", l.last, err)
	}
	if n, err := l.append(); err != nil || n != 11 {
		t.Fatalf("append: %d, %v", n, err)
	}
	l.file.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1, 2, 3}, 4*recordSize); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, _, err := check(path); err == nil {
		t.Fatal("damage in the middle was not found")
	}
}
