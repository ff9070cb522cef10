package etcdstate

import "github.com/sluice-platform/sluice/internal/state/metered"

// Size returns how full the member's database is.
func (e *Embedded) Size() metered.Size {
	b := e.etcd.Server.Backend()
	return metered.Size{Bytes: b.Size(), InUse: b.SizeInUse(),
		Quota: e.etcd.Config().QuotaBackendBytes}
}
