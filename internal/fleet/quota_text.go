package fleet

import (
	"cmp"
	"fmt"
	"strconv"
)

// Text is an amount with what it is of, for people.
func (q Quantity) Text(n int64) string {
	switch q {
	case QuotaCPU:
		if n == 1000 {
			return "1 cpu"
		}
		return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) + " cpus"
	case QuotaMemory:
		return sizeText(n<<20) + " of memory"
	case QuotaDisk:
		return sizeText(n) + " of disks"
	case QuotaImageBytes:
		return sizeText(n) + " of images"
	case QuotaRunning:
		return counted(n, "running machine")
	case QuotaExecs:
		return counted(n, "open command")
	case QuotaLogs:
		return counted(n, "open stream of logs", "open streams of logs")
	case QuotaMachines:
		return counted(n, "machine")
	case QuotaSecrets:
		return counted(n, "secret")
	case QuotaImages:
		return counted(n, "image")
	case SecretBytes:
	}
	return fmt.Sprintf("%d %s", n, q)
}

func counted(n int64, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// sizeText writes a size so that it is exact: in the largest unit of which it is a whole number.
func sizeText(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// flagOf has the flags of quantities that aren't called as they are.
func flagOf() map[Quantity]string {
	return map[Quantity]string{QuotaCPU: "cpus", QuotaMemory: "memory", QuotaDisk: "disk",
		QuotaImageBytes: "image-bytes"}
}

// Flag is how the command line calls it.
func (q Quantity) Flag() string { return cmp.Or(flagOf()[q], string(q)) }

// flags is how the command line is told of a scope.
func (s QuotaScope) flags() string {
	switch {
	case s.Default:
		return "--default"
	case s.Network != "" && s.App != "":
		return string(s.Network) + " --app " + string(s.App)
	case s.Network != "":
		return string(s.Network)
	}
	return "--fleet"
}

// lessens says what makes room.
func (q Quantity) lessens(of QuotaScope) string {
	switch q {
	case QuotaRunning, QuotaCPU, QuotaMemory:
		return "stop machines, see: sluice quota show " + of.flags()
	case QuotaExecs, QuotaLogs:
		return "end some"
	case QuotaSecrets:
		return "unset some: sluice secret list"
	case QuotaImages, QuotaImageBytes:
		return "see: sluice image list"
	case QuotaMachines, QuotaDisk, SecretBytes:
	}
	return "destroy machines, see: sluice quota show " + of.flags()
}
