package httpapitest

import (
	"context"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// CreateJoinToken implements fleet.Enrolment.
func (f *Fleet) CreateJoinToken(_ context.Context, worker fleet.WorkerID,
	ttl time.Duration) (fleet.JoinToken, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := fleet.CheckName("worker", string(worker)); err != nil {
		return fleet.JoinToken{}, "", err
	}
	t := fleet.JoinToken{ID: "token1", Worker: worker, CreatedAt: f.now,
		ExpiresAt: f.now.Add(ttl)}
	f.joinTokens = append(f.joinTokens, t)
	f.mutatedLocked()
	return t, "sluice-join.token1", f.fail
}

// JoinTokens implements fleet.Enrolment.
func (f *Fleet) JoinTokens(context.Context) ([]fleet.JoinToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.joinTokens), f.fail
}

// DeleteJoinToken implements fleet.Enrolment.
func (f *Fleet) DeleteJoinToken(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.joinTokens)
	f.joinTokens = slices.DeleteFunc(f.joinTokens,
		func(t fleet.JoinToken) bool { return t.ID == id })
	if len(f.joinTokens) == before {
		return errs.New(errs.NotFound, "there is no join token %q", id)
	}
	f.mutatedLocked()
	return f.fail
}

// Enroll implements fleet.Enrolment.
func (f *Fleet) Enroll(_ context.Context, req fleet.EnrollRequest) (fleet.EnrollAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if req.Token == "" {
		return fleet.EnrollAnswer{}, errs.New(errs.Denied, "the fleet knows no such join token")
	}
	return fleet.EnrollAnswer{Certificate: "of " + string(req.Worker)}, f.fail
}

// Renew implements fleet.Enrolment.
func (f *Fleet) Renew(_ context.Context, worker fleet.WorkerID, _ int64,
	_ string) (fleet.EnrollAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fleet.EnrollAnswer{Certificate: "of " + string(worker)}, f.fail
}

// RevokeWorker implements fleet.Enrolment. Each certificate of a worker so far is refused.
func (f *Fleet) RevokeWorker(_ context.Context, worker fleet.WorkerID,
	reason string) (fleet.WorkerIdentity, error) {
	f.mu.Lock()
	if _, err := f.workerLocked(worker); err != nil {
		f.mu.Unlock()
		return fleet.WorkerIdentity{}, err
	}
	f.revoked[worker] = f.now.UnixMilli()
	waiting := slices.Clone(f.refused[worker])
	f.mutatedLocked()
	f.mu.Unlock()
	for _, do := range waiting {
		do()
	}
	return fleet.WorkerIdentity{Worker: worker, Revoked: f.now.UnixMilli(), RevokedAt: f.now,
		Reason: reason}, nil
}

// CheckWorker implements fleet.Enrolment.
func (f *Fleet) CheckWorker(worker fleet.WorkerID, term int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.revoked[worker]; ok && term <= at {
		return errs.New(errs.Denied, "the certificate of worker %s was revoked", worker).
			WithRemedy("sluice worker token create --name %s", worker)
	}
	return nil
}

// OnRefused implements fleet.Enrolment. What is removed is called nevertheless.
func (f *Fleet) OnRefused(worker fleet.WorkerID, _ int64, do func()) (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[worker] = append(f.refused[worker], do)
	return func() {}
}

// Authority implements fleet.Enrolment.
func (f *Fleet) Authority(context.Context) (fleet.AuthorityView, error) {
	return fleet.AuthorityView{AuthorityState: fleet.AuthorityState{Phase: "settled",
		Version: "v1", PEM: "pem", Certs: []fleet.AuthorityCert{{Fingerprint: "f1", Signs: true}}},
		Current: []fleet.WorkerID{"w1"}, Behind: []fleet.WorkerID{"w2"}}, f.fail
}

// RotateAuthority implements fleet.Enrolment. It knows the step begin alone.
func (f *Fleet) RotateAuthority(ctx context.Context, step string,
	_ bool) (fleet.AuthorityView, error) {
	if step != "begin" {
		return fleet.AuthorityView{}, errs.New(errs.Invalid, "there is no step %q", step)
	}
	v, err := f.Authority(ctx)
	v.Phase = "begun"
	return v, err
}

// AwaitRefusals returns once so many wait for a worker to be refused.
func (f *Fleet) AwaitRefusals(worker fleet.WorkerID, n int) {
	for {
		f.mu.Lock()
		waiting := len(f.refused[worker])
		f.mu.Unlock()
		if waiting >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
