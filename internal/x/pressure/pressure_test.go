package pressure_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/pressure"
)

func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func stalls(some string) string {
	return "some avg10=" + some +
		" avg60=1.00 avg300=1.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  pressure.Reading
	}{
		{"stalls under load", map[string]string{"loadavg": "20.00 9.00 3.00 21/300 99\n",
			"pressure/cpu": stalls("75.00"), "pressure/memory": stalls("0.50"),
			"pressure/io": stalls("12.00")},
			pressure.Reading{CPU: 0.75, Memory: 0.005, IO: 0.12, Stalls: true, Load: 20, Cores: 2}},
		{"stalls that the load doesn't explain",
			map[string]string{"loadavg": "4.00 1.00 1.00 1/300 99\n",
				"pressure/cpu": stalls("90.00"), "pressure/memory": stalls("0.00"),
				"pressure/io": stalls("0.00")},
			pressure.Reading{CPU: 0.5, Stalls: true, Load: 4, Cores: 2}},
		{"no stalls, by the load", map[string]string{"loadavg": "20.00 9.00 3.00 21/300 99\n"},
			pressure.Reading{CPU: 0.9, Load: 20, Cores: 2}},
		{"empty files of stalls", map[string]string{"loadavg": "1.00 1.00 1.00 1/300 99\n",
			"pressure/cpu": ""},
			pressure.Reading{Load: 1, Cores: 2}},
	} {
		got, err := pressure.At(proc(t, c.files), 2).Read()
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

func TestReadSaysWhatItCannotRead(t *testing.T) {
	if _, err := pressure.At(t.TempDir(), 2).Read(); err == nil {
		t.Error("a host without a load was read")
	}
	broken := proc(t, map[string]string{"loadavg": "1.00 1",
		"pressure/cpu": "some avg10=x avg60=0\n"})
	if r, err := pressure.At(broken, 2).Read(); err == nil {
		t.Errorf("a broken file was read as %+v", r)
	}
}

func TestReadThisHost(t *testing.T) {
	r, err := pressure.New().Read()
	if err != nil || r.Cores < 1 || r.CPU < 0 || r.CPU > 1 {
		t.Errorf("this host says %+v, %v", r, err)
	}
}
