package format

import "testing"

// FuzzForm: what a hostile writer stores is checked by who holds the store's credentials.
func FuzzForm(f *testing.F) {
	c := codec(f)
	h := sampleHead()
	of := &Form{UID: h.UID, Size: h.Size, Lineage: h.Lineage}
	obj, log, _ := sampleLog(c)
	point, err := Encode(&Checkpoint{Version: Version, Name: "v1", UID: h.UID, Nonce: h.Nonce,
		Size: h.Size, Mode: h.Mode, Root: h.Root, Lineage: h.Lineage, Created: h.Created})
	if err != nil {
		f.Fatal(err)
	}
	root := sampleRoot()
	pages := make([]byte, PagesHeaderLen)
	PutPagesHeader(pages, id(1), 1)
	for key, body := range map[Key][]byte{
		{Kind: KeyLog, Epoch: log.Epoch, N: log.Seq}: obj,
		{Kind: KeySeg, Epoch: 1, N: 1}:               obj,
		MapKey(root.Epoch, root.N, RootName):         c.EncodeRoot(root, nil),
		MapKey(1, 1, PagesName):                      pages,
		{Kind: KeyCheckpoint, Name: "v1"}:            point,
		{Kind: KeyBoot, Epoch: 1}:                    EncodeTrace([]BlockRun{{1, 2}}),
		{Kind: KeyBoot, Name: "v1"}:                  EncodeTrace(nil),
	} {
		f.Add(key.String(), body)
	}
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		k, ok := ParseKey(key)
		if !ok {
			return
		}
		if err := c.CheckForm(k, body, of); err != nil {
			return
		}
		switch k.Kind {
		case KeyCheckpoint:
			ck, err := DecodeCheckpoint(body)
			if err != nil || ck.Name != k.Name || ck.UID != of.UID {
				t.Fatalf("checkpoint %q: %+v, %v", k.Name, ck, err)
			}
		case KeyLog, KeySeg:
			if _, err := DecodeLogHeader(body); err != nil {
				t.Fatal(err)
			}
		case KeyMap, KeyBoot:
		default:
			t.Fatalf("no writer makes a %s", k.Kind)
		}
	})
}
