package httpapitest

import (
	"context"
	"net/netip"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Join implements fleet.WorkerFeed.
func (f *Fleet) Join(_ context.Context, req fleet.JoinRequest) (fleet.JoinAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !req.Address.IsValid() {
		return fleet.JoinAnswer{},
			errs.New(errs.Invalid, "worker %q joins without an address", req.Worker)
	}
	f.joins = append(f.joins, req)
	f.mutatedLocked()
	return fleet.JoinAnswer{Number: uint32(len(f.joins)), StoreURL: "file:///pool",
		FleetID: "test"}, f.fail
}

// Assignments implements fleet.WorkerFeed: revision 1 holds nothing; it waits for ctx when asked
// after it.
func (f *Fleet) Assignments(ctx context.Context, worker fleet.WorkerID,
	after int64) (fleet.AssignmentSet, error) {
	if after == 1 {
		<-ctx.Done()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.workerLocked(worker); err != nil {
		return fleet.AssignmentSet{}, err
	}
	return fleet.AssignmentSet{Worker: worker, Revision: 1,
		Peers: []fleet.Peer{{Worker: "w2", Number: 2, Address: netip.IPv6LinkLocalAllNodes()}}}, nil
}

// Report implements fleet.WorkerFeed.
func (f *Fleet) Report(_ context.Context, report fleet.WorkerReport) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.reports = append(f.reports, report)
	f.mutatedLocked()
	return nil
}

// WorkerOf implements fleet.Locator.
func (f *Fleet) WorkerOf(_ context.Context, ref string) (fleet.MachineID, fleet.WorkerAPI, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findLocked(ref)
	if err != nil {
		return "", fleet.WorkerAPI{}, err
	}
	if v.Machine.State != fleet.MachineStarted {
		return "", fleet.WorkerAPI{}, errs.New(errs.Unavailable, "machine %q is %s", ref,
			v.Machine.State).
			WithRemedy("try again in a second, or start it with: sluice machine start %s", ref)
	}
	if _, revoked := f.revoked["w1"]; revoked {
		return "", fleet.WorkerAPI{}, errs.New(errs.Unavailable,
			"machine %q is on w1, which is revoked", ref)
	}
	return v.Machine.ID, fleet.WorkerAPI{Worker: "w1", URL: f.workerURL}, nil
}

// StoreKeySecret is the secret of the store's key that workers get.
const StoreKeySecret = "the-secret-of-the-store"

// StoreCredentials implements fleet.StoreKeys: generation 1 is all there is. It waits for ctx when
// asked after it, and has a key for who asks whatever became of it meanwhile.
func (f *Fleet) StoreCredentials(ctx context.Context, _ fleet.WorkerID,
	have int64) (fleet.StoreCredentials, error) {
	if have == 1 {
		<-ctx.Done()
	}
	return fleet.StoreCredentials{Generation: 1, AccessKey: "key", SecretKey: StoreKeySecret}, nil
}

// StoreKeys implements fleet.StoreKeys.
func (f *Fleet) StoreKeys() fleet.StoreKeyView {
	return fleet.StoreKeyView{Needed: true, Source: "file", Generation: 1, KeyID: "key"}
}
