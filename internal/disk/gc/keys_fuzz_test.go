package gc

import "testing"

// FuzzKeys: a key is taken apart as a disk would put it together, or not at all. What was parsed is deleted by the key that
// is made of it.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"disks/a/head", "a/log/0000000000000001/0000000000000002", "a/seg/0000000000000001-00000002",
		"a/map/0000000000000001-00000002/pages", "a/ckpt/v1", "a/boot/of/v1", "a/boot/0000000000000001",
		"0000000000000005-01J0000000000000000000000D/0000000000000001"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if path, o, ok := parse(key); ok && path+"/"+o.rel() != key {
			t.Fatalf("%q is taken for %q of %q", key, o.rel(), path)
		}
		if o, ok := parseSecond(key); ok && (o.secondRel() != key || o.kind != kindLog || !o.second || o.name == "") {
			t.Fatalf("%q is taken for %q", key, o.secondRel())
		}
	})
}
