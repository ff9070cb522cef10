package bytesize_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]int64{"1": 1 << 20, "256": 256 << 20, "1GiB": 1 << 30,
		"1.5g": 3 << 29, "512 MiB": 512 << 20, "10KB": 10 << 10, "7B": 7, "2T": 2 << 40} {
		if got, err := bytesize.Parse(in, 1<<20); err != nil || got != want {
			t.Errorf("%q = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "-1", "x", "1XiB", "1GiBs", "NaN", "Inf",
		"9999999P", "1 2"} {
		if got, err := bytesize.Parse(in, 1<<20); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q = %d, %v", in, got, err)
		}
	}
}
