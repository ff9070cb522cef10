// Package bytesize reads sizes as people write them.
package bytesize

import (
	"math"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Parse reads a size such as 512MiB, 1GiB or 1.5G; a bare number counts in unit bytes. Units
// are binary. The result is at least 1.
func Parse(s string, unit int64) (int64, error) {
	text := strings.TrimSpace(s)
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	if suffix := strings.ToUpper(strings.TrimSpace(text[len(number):])); suffix != "" {
		power := strings.IndexByte("BKMGTP", suffix[0])
		rest := suffix[1:]
		if power < 0 || (rest != "" && rest != "B" && rest != "IB") || (power == 0 && rest != "") {
			return 0, bad(s)
		}
		unit = int64(1) << (10 * power)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(n) || n <= 0 || n*float64(unit) < 1 || n*float64(unit) > 1<<60 {
		return 0, bad(s)
	}
	return int64(n * float64(unit)), nil
}

func bad(s string) error {
	return errs.New(errs.Invalid, "size %q is not understood", s).
		WithRemedy("write it like 512MiB or 10GiB")
}
