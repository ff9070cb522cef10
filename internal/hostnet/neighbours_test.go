package hostnet

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOnlyWhatIsLowerIsRaised writes no setting of the host: the files are the test's own.
func TestOnlyWhatIsLowerIsRaised(t *testing.T) {
	dir := t.TempDir()
	bounds := make([]Bound, 0, 3)
	for name, has := range map[string]string{"low": "1024\n", "high": "999999\n", "absent": ""} {
		b := Bound{Name: name, File: filepath.Join(dir, name), Least: 4096}
		bounds = append(bounds, b)
		if has == "" {
			continue
		}
		if err := os.WriteFile(b.File, []byte(has), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := raise(bounds)
	if err != nil || len(set) != 1 || set[0].Name != "low" {
		t.Errorf("raised %v, %v", set, err)
	}
	for name, want := range map[string]string{"low": "4096", "high": "999999\n"} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if again, err := raise(bounds); err != nil || len(again) != 0 {
		t.Errorf("raised again: %v, %v", again, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "absent")); err == nil {
		t.Error("it made a file")
	}
}

// TestBoundsGrow: the kernel's are in this order, and so is the raising of them: at no time is a
// higher one below a lower one.
func TestBoundsGrow(t *testing.T) {
	all := NeighbourBounds()
	for i := 1; i < len(all); i++ {
		if all[i].Least >= all[i-1].Least {
			t.Errorf("%s is not below %s", all[i].Name, all[i-1].Name)
		}
	}
}
