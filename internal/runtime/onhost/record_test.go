package onhost

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRecordSurvivesGarbage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "0123abcd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "{", `{"id":"ffffffff","pid":1}`} {
		if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadRecord(dir, "sluice/w1")
		if err != nil || r.ID != "0123abcd" || r.PID != 0 || r.CgroupParent != "sluice/w1" {
			t.Errorf("content %q: %+v, %v", content, r, err)
		}
	}
	whole := Record{ID: "0123abcd", CgroupParent: "other/w2", Boot: "b", PID: 7, StartTicks: 99}
	if err := whole.Write(dir); err != nil {
		t.Fatal(err)
	}
	if r, err := ReadRecord(dir, "sluice/w1"); err != nil || r != whole {
		t.Errorf("%+v, %v", r, err)
	}
}
