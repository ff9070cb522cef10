package format

import (
	"bytes"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sampleLogStoreHead is of a disk whose last two writers died, the second before it had written a
// map.
func sampleLogStoreHead() *Head {
	h := sampleHead()
	h.Epoch, h.Session, h.Log = 5, "01J0000000000000000000000D", Position{Epoch: 4, Seq: 65}
	h.SetLogStore(&LogStore{URL: "s3://fast-bucket/logs", Binding: "01J0000000000000000000000B",
		Runs: []LogRun{{Epoch: 4, Session: "01J0000000000000000000000C"},
			{Epoch: 5, Session: h.Session}}})
	return h
}

func sampleIdentity() *LogIdentity {
	h := sampleLogStoreHead()
	return &LogIdentity{Version: Version, UID: h.UID, ID: h.ID, Path: "disks/b",
		Binding: h.LogStore.Binding, Created: h.Created}
}

func TestLogStoreHeadIsChecked(t *testing.T) {
	b, err := Encode(sampleLogStoreHead())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new string }{
		{`"log-store"`, `"bounded"`},
		{`s3://fast-bucket/logs`, ``},
		{`s3://fast-bucket/logs`, `s3://fast\nbucket`},
		{`01J0000000000000000000000B`, `../../../../../../disks/a/`},
		{`01J0000000000000000000000C`, `../../../../../../disks/a/`},
		{`"epoch": 4,
        "session"`, `"epoch": 3,
        "session"`},
		{`"epoch": 5,
        "session"`, `"epoch": 6,
        "session"`},
		{`"log": {
    "epoch": 4`, `"log": {
    "epoch": 3`},
		{`"uid": "01J0000000000000000000000A"`, `"uid": "a/b"`},
	} {
		bad := bytes.Replace(b, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(bad, b) {
			t.Fatalf("%s is not there", c.old)
		}
		if h, err := DecodeHead(bad); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s: %v, %+v", c.new, err, h)
		}
	}
	h := sampleLogStoreHead()
	if s := h.LogStore.With(LogRun{Epoch: 6, Session: "x"}, 5); len(s.Runs) != 2 ||
		s.Runs[0].Epoch != 5 || len(h.LogStore.Runs) != 2 {
		t.Errorf("%+v", s)
	}
	if s, ok := h.LogStore.Session(4); !ok || s != "01J0000000000000000000000C" {
		t.Errorf("session of epoch 4: %q", s)
	}
	if _, ok := h.LogStore.Session(6); ok {
		t.Error("a session of epoch 6")
	}
	h.SetLogStore(nil)
	if h.Features != nil {
		t.Errorf("features %v", h.Features)
	}
}

func TestLogIdentityIsChecked(t *testing.T) {
	b, err := Encode(sampleIdentity())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		old, new string
		kind     errs.Kind
	}{
		{`"version": 1`, `"version": 2`, errs.Unsupported},
		{`"version": 1,`, `"version": 1, "features": ["x"],`, errs.Unsupported},
		{`"version": 1,`, `"version": 1, "surprise": 1,`, errs.Corrupt},
		{`01J0000000000000000000000B`, ``, errs.Corrupt},
		{`01J0000000000000000000000A`, ``, errs.Corrupt},
		{`disks/b`, `../b`, errs.Corrupt},
	} {
		bad := bytes.Replace(b, []byte(c.old), []byte(c.new), 1)
		if _, err := DecodeLogIdentity(bad); bytes.Equal(bad, b) || !errs.Is(err, c.kind) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
}
