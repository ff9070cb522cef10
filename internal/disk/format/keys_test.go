package format

import (
	"fmt"
	"strings"
	"testing"
)

const (
	epochA  = 0x1a
	session = "01J0000000000000000000000D"
)

// TestKeys has the key of every kind as docs/formats/disk.md has it.
func TestKeys(t *testing.T) {
	for rel, k := range map[string]Key{
		"head":                                  {Kind: KeyHead},
		"machine.json":                          {Kind: KeyOwner},
		"log/000000000000001a/0000000000000002": {Kind: KeyLog, Epoch: epochA, N: 2},
		"log/ffffffffffffffff/ffffffffffffffff": {Kind: KeyLog, Epoch: 1<<64 - 1, N: 1<<64 - 1},
		"seg/000000000000001a-00000002":         {Kind: KeySeg, Epoch: epochA, N: 2},
		"map/000000000000001a-fffffff0/pages": {Kind: KeyMap, Epoch: epochA, N: 0xfffffff0,
			Name: PagesName},
		"map/000000000000001a-00000002/root": {Kind: KeyMap, Epoch: epochA, N: 2,
			Name: RootName},
		"ckpt/v1":               {Kind: KeyCheckpoint, Name: "v1"},
		"ckpt/head":             {Kind: KeyCheckpoint, Name: "head"},
		"refs/disks%2Fb":        {Kind: KeyRef, Name: "disks%2Fb"},
		"pins/lease-1":          {Kind: KeyPin, Name: "lease-1"},
		"boot/000000000000001a": {Kind: KeyBoot, Epoch: epochA},
		"boot/of/v1":            {Kind: KeyBoot, Name: "v1"},
	} {
		if got := k.String(); got != rel {
			t.Errorf("%+v is %q, want %q", k, got, rel)
		}
		if got := k.In("disks/a"); got != "disks/a/"+rel {
			t.Errorf("%+v in a disk is %q", k, got)
		}
		if got, ok := ParseKey(rel); !ok || got != k {
			t.Errorf("%q is taken for %+v, %v", rel, got, ok)
		}
		// Whatever the path ends in, also a folder's name.
		for _, path := range []string{"a", "disks/a", "disks/log", "a/map", "a/seg", "a/boot",
			"log/log"} {
			if p, got, ok := SplitKey(path + "/" + rel); rel != "ckpt/head" &&
				(p != path || got != k || !ok) {
				t.Errorf("%q of %q is taken for %+v of %q, %v", rel, path, got, p, ok)
			}
		}
	}
	for rel, k := range map[string]Key{
		"disk": {Kind: KeyIdentity},
		"once": {Kind: KeyOnce},
		"log/000000000000001a-" + session + "/0000000000000002": {Kind: KeyRunLog, Epoch: epochA,
			N: 2, Name: session},
	} {
		if got := k.String(); got != rel {
			t.Errorf("%+v is %q, want %q", k, got, rel)
		}
		if got, ok := ParseLogKey(rel); !ok || got != k {
			t.Errorf("%q in a log store is taken for %+v, %v", rel, got, ok)
		}
		if got, ok := ParseKey(rel); ok {
			t.Errorf("%q of a log store is taken for %+v of a pool", rel, got)
		}
	}
}

func TestKeysOfNoDisk(t *testing.T) {
	for _, rel := range []string{"", "/", "heads", "head/", "log", "log/1/2",
		"log/000000000000001A/0000000000000002",
		"log/000000000000001a/0000000000000002/x", "log/000000000000001a/00000000000000002",
		"seg/000000000000001a-2",
		"seg/000000000000001a00000002", "map/000000000000001a-00000002",
		"map/000000000000001a-00000002/leaf",
		"ckpt/", "ckpt/a/b", "refs/", "pins/", "boot/", "boot/of", "boot/of/", "boot/1", "b/head"} {
		if k, ok := ParseKey(rel); ok {
			t.Errorf("%q is taken for %+v", rel, k)
		}
	}
	if p, k, ok := SplitKey("head"); ok {
		t.Errorf("a head without a path is taken for %+v of %q", k, p)
	}
}

// TestKeyOfBothKinds: a head below ckpt/ has the key of a checkpoint.
func TestKeyOfBothKinds(t *testing.T) {
	const key = "a/ckpt/head"
	if path, k, ok := SplitKey(key); path != "a/ckpt" || k.Kind != KeyHead || !ok {
		t.Errorf("%q is taken for %+v of %q", key, k, path)
	}
	if path, k, ok := SplitNamed(key); path != "a" ||
		k != (Key{Kind: KeyCheckpoint, Name: "head"}) || !ok {
		t.Errorf("%q as a document is taken for %+v of %q", key, k, path)
	}
}

func TestNames(t *testing.T) {
	for name, is := range map[string]bool{"head": true, "machine.json": true, "v1": false,
		"log": false} {
		if IsDocumentName(name) != is {
			t.Errorf("%q is a document's name: %v", name, !is)
		}
	}
	for _, folder := range []string{"ckpt", "refs", "pins", "of", "log", "seg", "map", "boot"} {
		// A disk at such a path would have the key of another disk's document for its head.
		_, _, clash := SplitNamed("a/" + folder + "/head")
		k, ok := ParseKey("boot/" + folder + "/head")
		clash = clash || ok && k.Kind == KeyBoot
		if HoldsNames(folder) != clash {
			t.Errorf("%q has names that people choose: %v", folder, !clash)
		}
	}
}

func TestRefNames(t *testing.T) {
	if name := RefName("disks/b c"); name != "disks%2Fb%20c" {
		t.Errorf("a short name: %q", name)
	}
	if child, ok := ChildOf("disks%2Fb%20c"); child != "disks/b c" || !ok {
		t.Errorf("the child of a short name: %q, %v", child, ok)
	}
	long := strings.Repeat("disks/", 40) + "b"
	name := RefName(long)
	if _, ok := ChildOf(name); ok || len(name) != len("sha256-")+64 || name == RefName(long+"c") {
		t.Errorf("a long name: %q", name)
	}
}

// FuzzKeys: a key is taken apart as a disk would put it together, or not at all. A collector
// deletes what it has parsed by the key that is made of it.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"disks/a/head", "a/log/0000000000000001/0000000000000002",
		"a/seg/0000000000000001-00000002",
		"a/map/0000000000000001-00000002/pages", "a/ckpt/v1", "a/boot/of/v1",
		"a/boot/0000000000000001", "head", "ckpt/head",
		"log/0000000000000005-" + session + "/0000000000000001"} {
		f.Add(key, uint64(1), uint64(2), "v1", uint8(0))
	}
	f.Fuzz(func(t *testing.T, key string, epoch, n uint64, name string, kind uint8) {
		if path, k, ok := SplitKey(key); ok && k.In(path) != key {
			t.Fatalf("%q is taken for %q of %q", key, k, path)
		}
		if path, k, ok := SplitNamed(key); ok && k.In(path) != key {
			t.Fatalf("%q as a document is taken for %q of %q", key, k, path)
		}
		if k, ok := ParseKey(key); ok && k.String() != key {
			t.Fatalf("%q is taken for %q", key, k)
		}
		if k, ok := ParseLogKey(key); ok && k.String() != key {
			t.Fatalf("%q in a log store is taken for %q", key, k)
		}
		k := sampleKey(KeyKind(kind)%(KeyRunLog+1), epoch, n, name)
		again, ok := ParseKey(k.String())
		if k.Kind >= KeyIdentity {
			again, ok = ParseLogKey(k.String())
		}
		if !ok || again != k {
			t.Fatalf("%+v is %q, which is taken for %+v, %v", k, k, again, ok)
		}
	})
}

// sampleKey returns a key of a kind, such as a disk would make it.
func sampleKey(kind KeyKind, epoch, n uint64, name string) Key {
	name = strings.ReplaceAll(name, "/", "") + "x"
	switch kind {
	case KeyHead, KeyOwner, KeyIdentity, KeyOnce:
		return Key{Kind: kind}
	case KeyLog:
		return Key{Kind: kind, Epoch: epoch, N: n}
	case KeySeg:
		return Key{Kind: kind, Epoch: epoch, N: n & (1<<32 - 1)}
	case KeyMap:
		return MapKey(epoch, uint32(n), [...]string{PagesName, RootName}[n%2])
	case KeyRunLog:
		return Key{Kind: kind, Epoch: epoch, N: n, Name: name}
	case KeyBoot:
		if n%2 == 0 {
			return Key{Kind: kind, Epoch: epoch}
		}
	}
	return Key{Kind: kind, Name: name}
}

func BenchmarkKey(b *testing.B) {
	b.ReportAllocs()
	k := Key{Kind: KeyLog, Epoch: epochA, N: 2}
	for range b.N {
		if k.In("disks/web-1") == "" {
			b.Fatal(fmt.Sprint(k))
		}
	}
}
