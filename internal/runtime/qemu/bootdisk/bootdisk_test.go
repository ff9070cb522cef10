package bootdisk

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDisk(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(Size); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOrder(t *testing.T) {
	disk, buffer := newDisk(t), make([]byte, Size)
	if _, there, err := Read(disk, buffer); there || err != nil {
		t.Fatalf("an empty disk: %v, %v", there, err)
	}
	want := Order{Hostname: "vm-1", Clock: time.Unix(1e9, 5).UTC(), Seed: []byte{1, 2},
		Boot: bytes.Repeat([]byte{0, 255, 'x'}, 50_000)}
	if err := Write(disk, want); err != nil {
		t.Fatal(err)
	}
	got, there, err := Read(disk, buffer)
	if !there || err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("there %v, %v: %d bytes of boot document", there, err, len(got.Boot))
	}
}

func TestTornOrderIsNotThere(t *testing.T) {
	disk, buffer := newDisk(t), make([]byte, Size)
	if err := Write(disk, Order{Boot: []byte("a document")}); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAt([]byte{0}, block+20); err != nil {
		t.Fatal(err)
	}
	if _, there, err := Read(disk, buffer); there || err != nil {
		t.Fatalf("a torn order: %v, %v", there, err)
	}
}

func TestTooLargeABootDocument(t *testing.T) {
	if err := Write(newDisk(t), Order{Boot: make([]byte, MaxBoot+1)}); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	if err := Write(newDisk(t), Order{Boot: make([]byte, MaxBoot)}); err != nil {
		t.Fatal(err)
	}
}
