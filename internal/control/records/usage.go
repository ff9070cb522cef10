package records

import (
	"context"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
)

// What scopes use is counted in records of their own, which change in the same transaction as what
// is counted: see account. So a decision that read them holds only if nobody has used more
// meanwhile, and costs the same however many machines there are.

// charge is what one record of a transaction changes in the use of its scopes.
type charge struct {
	scopes []fleet.QuotaScope
	delta  fleet.Amounts
}

// Growth is what a transaction adds to the use of one scope, where it grows.
type Growth struct {
	Scope fleet.QuotaScope
	Used  fleet.Amounts // before it
	Added fleet.Amounts // more than 0 each
}

// uses returns what a record counts for; nothing, if it isn't of a kind that counts.
func (r *Records) uses(record any, image func(fleet.ImageName) int64) ([]fleet.QuotaScope,
	fleet.Amounts) {
	switch v := record.(type) {
	case fleet.Machine:
		return fleet.QuotaScopes(v.Network, v.App), v.Uses(image(v.Config.Image))
	case fleet.Secret:
		return fleet.QuotaScopes(v.Network, v.App),
			fleet.Amounts{fleet.QuotaSecrets: 1, fleet.SecretBytes: int64(len(v.Sealed))}
	case fleet.Image:
		return []fleet.QuotaScope{{}},
			fleet.Amounts{fleet.QuotaImages: 1, fleet.QuotaImageBytes: v.SizeBytes}
	}
	return nil, nil
}

// account notes what a record's change means for what its scopes use. Each change of a record goes
// through it, so that nothing that counts is changed without being counted. nil is no record.
func (t *Txn) account(key string, was, now any) {
	image := func(name fleet.ImageName) int64 {
		i, _ := t.r.Images.Get(name)
		return i.Val.SizeBytes
	}
	scopes, delta := t.r.uses(now, image)
	from, before := t.r.uses(was, image)
	if scopes == nil && from == nil {
		return
	}
	if scopes == nil {
		scopes = from // no record changes its scopes
	}
	sum := fleet.Amounts{}
	sum.Add(delta, 1)
	sum.Add(before, -1)
	if delete(t.charges, key); len(sum) > 0 {
		t.charges[key] = charge{scopes, sum}
	}
}

// charged returns what the transaction changes in the use of each scope, by its id, and reads each
// scope's record the first time.
func (t *Txn) charged() map[string]fleet.Amounts {
	sums := map[string]fleet.Amounts{}
	for _, c := range t.charges {
		for _, s := range c.scopes {
			id := s.ID()
			if sums[id] == nil {
				sums[id] = fleet.Amounts{}
			}
			sums[id].Add(c.delta, 1)
			if _, read := t.used[id]; !read {
				t.used[id], _ = t.r.Usage.Get(id)
			}
		}
	}
	return sums
}

// Growth returns what the transaction adds to the use of scopes, ordered by their ids. That is what
// will be used when it is committed: else it conflicts.
func (t *Txn) Growth() []Growth {
	sums := t.charged()
	var all []Growth
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		g := Growth{Scope: fleet.ScopeOfID(id), Used: t.used[id].Val.Used, Added: fleet.Amounts{}}
		for q, n := range sums[id] {
			if n > 0 {
				g.Added[q] = n
			}
		}
		if len(g.Added) > 0 {
			all = append(all, g)
		}
	}
	return all
}

// writeUsage adds what has changed in the use of scopes to the transaction.
func (t *Txn) writeUsage() {
	for id, delta := range t.charged() {
		row, next := t.used[id], fleet.Amounts{}
		if len(delta) == 0 {
			continue
		}
		next.Add(row.Val.Used, 1)
		next.Add(delta, 1)
		maps.DeleteFunc(next, func(_ fleet.Quantity, n int64) bool { return n <= 0 })
		if len(next) > 0 {
			Set(t, row, Usage{Used: next})
		} else if row.Rev != 0 {
			Delete(t, row)
		}
	}
}

// recount sets right what scopes use, before anything is decided: a release before this one counts
// nothing.
func (r *Records) recount(ctx context.Context) error {
	t := r.Begin()
	for id, want := range r.usageByRecords() {
		row, _ := r.Usage.Get(id)
		if maps.Equal(row.Val.Used, want) {
			continue
		}
		r.cfg.Log.DebugContext(ctx, "what is used is counted anew", "scope", id,
			"was", row.Val.Used, "is", want)
		if len(want) > 0 {
			Set(t, row, Usage{Used: want})
		} else {
			Delete(t, row)
		}
		if t.Len() == state.MaxTxnOps {
			if err := t.Commit(ctx); err != nil {
				return err
			}
			t = r.Begin()
		}
	}
	if t.Len() == 0 {
		return nil
	}
	return t.Commit(ctx)
}

// usageByRecords counts what is used, by scopes' ids; nothing for a scope that has a record and
// uses nothing.
func (r *Records) usageByRecords() map[string]fleet.Amounts {
	r.mu.RLock()
	defer r.mu.RUnlock()
	sums := map[string]fleet.Amounts{}
	for id := range r.Usage.rows {
		sums[id] = fleet.Amounts{}
	}
	image := func(name fleet.ImageName) int64 {
		i, _ := r.Images.getLocked(name)
		return i.Val.SizeBytes
	}
	add := func(record any) {
		scopes, uses := r.uses(record, image)
		for _, s := range scopes {
			if sums[s.ID()] == nil {
				sums[s.ID()] = fleet.Amounts{}
			}
			sums[s.ID()].Add(uses, 1)
		}
	}
	for _, m := range r.Machines.rows {
		add(m.Val)
	}
	for _, s := range r.Secrets.rows {
		add(s.Val)
	}
	for _, i := range r.Images.rows {
		add(i.Val)
	}
	return sums
}
