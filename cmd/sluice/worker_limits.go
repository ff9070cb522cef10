package main

import (
	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/worker/gateway"
)

// storeLimits are the flags of what VMs may do to the store that all of them share.
type storeLimits struct {
	memoryMiB, quotaGiB               int64
	quotaFactor, requests, mibASecond float64
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
