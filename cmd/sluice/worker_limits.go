package main

import (
	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// storeLimits are the flags of what VMs may do to the store and the network, which all of them
// share.
type storeLimits struct {
	memoryMiB, quotaGiB               int64
	quotaFactor, requests, mibASecond float64
	networkMiB                        float64
}

func (l *storeLimits) add(f *pflag.FlagSet) {
	f.Int64Var(&l.memoryMiB, "gateway-memory-mib", 256,
		"memory for objects on their way between VMs and the store, beside 16 MiB for each VM")
	f.Float64Var(&l.quotaFactor, "disk-quota-factor", 16,
		"what a machine's disk may have in the store, garbage included: times its size; 0: no bound")
	f.Int64Var(&l.quotaGiB, "disk-quota-extra-gib", 16, "and so many GiB more")
	f.Float64Var(&l.requests, "vm-store-requests", 5000,
		"requests a second of each VM to the store; 0: no bound")
	f.Float64Var(&l.mibASecond, "vm-store-mib", 1024,
		"MiB a second of each VM to and from the store; 0: no bound")
	f.Float64Var(&l.networkMiB, "vm-network-mib", 0,
		"MiB a second that each VM may send to other machines; 0: no bound")
}

// rate returns how many bytes a second a VM may send to other machines; 0: no bound.
func (l *storeLimits) rate() (int64, error) {
	if !(l.networkMiB >= 0 && l.networkMiB <= 1<<20) || l.networkMiB > 0 && l.networkMiB < 1.0/64 {
		return 0, errs.New(errs.Invalid, "--vm-network-mib %v is not 0, or from 1/64 to 1048576",
			l.networkMiB).WithRemedy("give MiB a second, or 0 for no bound")
	}
	return int64(l.networkMiB * (1 << 20)), nil
}

// limits returns them as the gateway takes them, for which 0 is a default.
func (l *storeLimits) limits() gateway.Limits {
	some := func(v float64) float64 {
		if v == 0 {
			return -1
		}
		return v
	}
	return gateway.Limits{QuotaFactor: some(l.quotaFactor), QuotaExtra: l.quotaGiB << 30,
		Requests: some(l.requests), Bytes: some(l.mibASecond * (1 << 20))}
}
