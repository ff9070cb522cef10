package pooldisks

import (
	"context"
	"encoding/json"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// claimKey holds the name of the fleet whose disks are in the pool.
const claimKey = "fleet.json"

type claim struct {
	Version int    `json:"version"`
	Fleet   string `json:"fleet"`
}

// Claim makes the pool the fleet's, if it is nobody's yet. Two fleets over one pool would each take
// the other's disks for nobody's.
//
// Errors: Conflict if the pool is another fleet's, Unavailable, Corrupt.
func (p *Pool) Claim(ctx context.Context, fleetID string) error {
	body, err := json.Marshal(claim{Version: 1, Fleet: fleetID})
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the pool's claim")
	}
	if _, err := p.store.PutIfAbsent(ctx, claimKey, body); err == nil {
		return nil
	}
	// Taken, perhaps by ourselves just now: look.
	obj, err := p.store.Get(ctx, claimKey, blob.All())
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "see whose the store is")
	}
	var have claim
	if err := json.Unmarshal(obj.Data, &have); err != nil {
		return errs.Wrap(errs.Corrupt, err, "read %s of the store", claimKey)
	}
	if have.Fleet != fleetID {
		return errs.New(errs.Conflict,
			"the store holds the disks of fleet %q, and this is fleet %q", have.Fleet, fleetID).
			WithRemedy(
				"give this fleet a prefix of its own in the bucket (--store …/prefix), or if it is that fleet, its name: --fleet-id %s", have.Fleet)
	}
	return nil
}
