package control_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// textAuthority makes certificates that are texts: "w1/TERM/KEY" for the request KEY. A token's
// text is ID.SECRET.
type textAuthority struct {
	tokens atomic.Int32
	steps  atomic.Int32 // of rotations
}

func (a *textAuthority) State() fleet.AuthorityState {
	return fleet.AuthorityState{Phase: "some", Version: fmt.Sprintf("v%d", a.steps.Load())}
}

func (a *textAuthority) Rotate(step string) error {
	if step == "jump" {
		return errs.New(errs.Invalid, "there is no step jump")
	}
	a.steps.Add(1)
	return nil
}

func (a *textAuthority) NewToken() (id, hash, text string) {
	n := a.tokens.Add(1)
	return fmt.Sprintf("t%d", n), fmt.Sprintf("hash of s%d", n), fmt.Sprintf("t%d.s%d", n, n)
}

func (*textAuthority) ReadToken(text string) (id, hash string, err error) {
	id, secret, ok := strings.Cut(text, ".")
	if !ok {
		return "", "", errs.New(errs.Invalid, "that is no join token")
	}
	return id, "hash of " + secret, nil
}

func (*textAuthority) CheckRequest(request string) (string, error) {
	if request == "" {
		return "", errs.New(errs.Invalid, "no request")
	}
	return request, nil
}

func (*textAuthority) Issue(worker fleet.WorkerID, term int64,
	request string) (fleet.EnrollAnswer, error) {
	return fleet.EnrollAnswer{Certificate: fmt.Sprintf("%s/%d/%s", worker, term, request)}, nil
}

// enrolling is a control plane whose clock a test sets.
type enrolling struct {
	t         *testing.T
	now       time.Time
	store     *memstate.Store
	authority textAuthority
	*control.Control
}

func newEnrolling(t *testing.T) *enrolling {
	t.Helper()
	e := &enrolling{t: t, now: time.Unix(1_700_000_000, 0), store: memstate.New(memstate.Config{})}
	e.restart()
	return e
}

// restart makes another server on the same state.
func (e *enrolling) restart() {
	e.t.Helper()
	c, err := control.New(control.Config{FleetID: "f1", StoreURL: "mem://pool"}, control.Deps{
		Store: e.store, Now: func() time.Time { return e.now }, Authority: &e.authority,
		Disks: &memDisks{docs: map[string][]byte{}}, Images: memImages{},
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		e.t.Fatal(err)
	}
	if err := c.Refresh(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	e.Control = c
}

func (e *enrolling) token(worker fleet.WorkerID) string {
	e.t.Helper()
	_, text, err := e.CreateJoinToken(e.t.Context(), worker, time.Hour)
	if err != nil {
		e.t.Fatal(err)
	}
	return text
}

func (e *enrolling) enroll(worker fleet.WorkerID, token, key string) (string, error) {
	a, err := e.Enroll(e.t.Context(), fleet.EnrollRequest{Worker: worker, Token: token,
		Request: key})
	return a.Certificate, err
}

func (e *enrolling) must(worker fleet.WorkerID, token, key string) (term int64) {
	e.t.Helper()
	cert, err := e.enroll(worker, token, key)
	if err != nil {
		e.t.Fatal(err)
	}
	if _, err := fmt.Sscanf(cert, string(worker)+"/%d/"+key, &term); err != nil {
		e.t.Fatalf("%q: %v", cert, err)
	}
	return term
}

// refused fails the test unless err is Denied or another kind, says so, and has a remedy.
func refused(t *testing.T, what string, err error, kind errs.Kind, says string) {
	t.Helper()
	if !errs.Is(err, kind) || !strings.Contains(err.Error(), says) || errs.RemedyOf(err) == "" {
		t.Errorf("%s: %v (%s), try: %s; want %q", what, err, errs.KindOf(err), errs.RemedyOf(err),
			says)
	}
}

// TestAJoinTokenWorksOnce, for one worker and one key, until it expires or is revoked; also after
// the server was started anew.
func TestAJoinTokenWorksOnce(t *testing.T) {
	e := newEnrolling(t)
	token := e.token("w1")
	for what, try := range map[string]struct {
		worker     fleet.WorkerID
		token, key string
		kind       errs.Kind
		says       string
	}{
		"of another worker": {"w2", token, "k", errs.Denied, "is for worker w1"},
		"unknown":           {"w1", "t9.s9", "k", errs.Denied, "no such join token"},
		"a wrong secret":    {"w1", "t1.s2", "k", errs.Denied, "no such join token"},
	} {
		_, err := e.enroll(try.worker, try.token, try.key)
		refused(t, what, err, try.kind, try.says)
	}
	if _, err := e.enroll("w1", token, ""); !errs.Is(err, errs.Invalid) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := e.enroll("w1", "x", "k"); !errs.Is(err, errs.Invalid) {
		t.Errorf("no token: %v", err)
	}
	term := e.must("w1", token, "k1")
	_, err := e.enroll("w1", token, "k2")
	refused(t, "a second key", err, errs.Denied, "was used")
	e.restart()
	if again := e.must("w1", token, "k1"); again != term {
		t.Errorf("the answer to a repetition has term %d, not %d", again, term)
	}
	e.now = e.now.Add(2 * time.Hour)
	_, err = e.enroll("w1", token, "k1")
	refused(t, "expired", err, errs.Denied, "expired")
	late := e.token("w3")
	tokens, err := e.JoinTokens(t.Context())
	if err != nil || len(tokens) != 2 || tokens[1].Worker != "w3" || tokens[0].UsedAt.IsZero() {
		t.Errorf("%+v, %v", tokens, err)
	}
	if err := e.DeleteJoinToken(t.Context(), tokens[1].ID); err != nil {
		t.Fatal(err)
	}
	_, err = e.enroll("w3", late, "k")
	refused(t, "revoked", err, errs.Denied, "no such join token")
	refused(t, "revoked twice", e.DeleteJoinToken(t.Context(), tokens[1].ID), errs.NotFound,
		"no join token")
	if err := e.CheckWorker("w1", term); err != nil {
		t.Errorf("the certificate outlives its token: %v", err)
	}
	e.now = e.now.Add(48 * time.Hour) // old ones are forgotten
	e.token("w4")
	if tokens, _ := e.JoinTokens(t.Context()); len(tokens) != 1 {
		t.Errorf("%d tokens are left", len(tokens))
	}
	for _, ttl := range []time.Duration{0, time.Second, 8 * 24 * time.Hour} {
		_, _, err := e.CreateJoinToken(t.Context(), "w5", ttl)
		refused(t, ttl.String(), err, errs.Invalid, ttl.String())
	}
}

func (e *enrolling) join(worker fleet.WorkerID, address, url string) error {
	_, err := e.Join(e.t.Context(), fleet.JoinRequest{Worker: worker,
		Address: netip.MustParseAddr(address), APIURL: url, Runtime: "sandbox",
		Capacity: fleet.Resources{CPUMillis: 4000, MemoryMiB: 1024}})
	return err
}

// TestRevocation refuses each certificate and token that a worker has got, tells who waits, and
// lets it in again by a new token. It outlives the server.
func TestRevocation(t *testing.T) {
	e := newEnrolling(t)
	token, spare := e.token("w1"), e.token("w1")
	old := e.must("w1", token, "k1")
	other := e.must("w2", e.token("w2"), "k1")
	if err := e.join("w1", "fd00::1", "https://[fd00::1]:7600"); err != nil {
		t.Fatal(err)
	}
	told, toldOther := 0, 0
	defer e.OnRefused("w1", old, func() { told++ })()
	defer e.OnRefused("w2", other, func() { toldOther++ })()
	e.OnRefused("w1", old, func() { t.Error("told although removed") })()
	if _, err := e.RevokeWorker(t.Context(), "w1", "stolen"); err != nil {
		t.Fatal(err)
	}
	if told != 1 || toldOther != 0 {
		t.Errorf("told %d times, and %d times of another worker", told, toldOther)
	}
	for range 2 {
		refused(t, "the certificate", e.CheckWorker("w1", old), errs.Denied, "was revoked")
		_, err := e.Renew(t.Context(), "w1", old, "k2")
		refused(t, "a renewal", err, errs.Denied, "was revoked")
		_, err = e.enroll("w1", token, "k1")
		refused(t, "a repeated join", err, errs.Denied, "no such join token")
		_, err = e.enroll("w1", spare, "k3")
		refused(t, "a token of before", err, errs.Denied, "no such join token")
		if err := e.CheckWorker("w2", other); err != nil {
			t.Errorf("another worker: %v", err)
		}
		e.restart()
	}
	// Other workers have no way to it any more.
	if err := e.join("w2", "fd00::2", "https://[fd00::2]:7600"); err != nil {
		t.Fatal(err)
	}
	peers := func() []fleet.Peer {
		t.Helper()
		set, err := e.Assignments(t.Context(), "w2", 0)
		if err != nil {
			t.Fatal(err)
		}
		return set.Peers
	}
	if p := peers(); len(p) != 0 {
		t.Errorf("w2 is told of %+v", p)
	}
	late := 0
	e.OnRefused("w1", old, func() { late++ })()
	if late != 1 {
		t.Error("who begins to wait after the revocation waits for ever")
	}
	view, err := e.Worker(t.Context(), "w1")
	// It was heard of just now, and nobody waits for its silence.
	if err != nil || view.RevokedAt.IsZero() || view.State != fleet.WorkerDown {
		t.Errorf("shown as %+v, %v", view, err)
	}
	// It is known, was heard of just now, and may come back, as it is revoked.
	next := e.must("w1", e.token("w1"), "k4")
	if err := e.CheckWorker("w1", next); err != nil || next <= old {
		t.Errorf("back with term %d after %d: %v", next, old, err)
	}
	refused(t, "the old certificate", e.CheckWorker("w1", old), errs.Denied, "was revoked")
	if a, err := e.Renew(t.Context(), "w1", next, "k5"); err != nil ||
		a.Certificate != fmt.Sprintf("w1/%d/k5", next) {
		t.Errorf("renewed as %+v, %v", a, err)
	}
	if p := peers(); len(p) != 1 || p[0].Worker != "w1" {
		t.Errorf("once w1 is back, w2 is told of %+v", p)
	}
	if view, err := e.Worker(t.Context(), "w1"); err != nil || !view.RevokedAt.IsZero() ||
		view.State == fleet.WorkerDown {
		t.Errorf("still shown as revoked: %+v, %v", view, err)
	}
	_, err = e.RevokeWorker(t.Context(), "w9", "")
	refused(t, "an unknown worker", err, errs.NotFound, "w9")
}

// TestAWorkerThatCanNotSpeakJoinsAnew: of a server that has just started nobody has heard anything;
// soon after, who hasn't been heard has no certificate that counts, and needs to wait no longer.
func TestAWorkerThatCanNotSpeakJoinsAnew(t *testing.T) {
	e := newEnrolling(t)
	for n, w := range []fleet.WorkerID{"w1", "w2"} {
		e.must(w, e.token(w), "k of "+string(w))
		at := fmt.Sprintf("fd00::%d", n+1)
		if err := e.join(w, at, "https://["+at+"]:7600"); err != nil {
			t.Fatal(err)
		}
	}
	e.restart()
	_, err := e.enroll("w1", e.token("w1"), "k2")
	refused(t, "at once", err, errs.Conflict, "is alive")
	for range 10 {
		e.now = e.now.Add(time.Second)
		e.Tick()
	}
	if err := e.Report(t.Context(), fleet.WorkerReport{Worker: "w2", Boot: "b",
		Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.enroll("w1", e.token("w1"), "k2"); err != nil {
		t.Errorf("one that was not heard: %v", err)
	}
	_, err = e.enroll("w2", e.token("w2"), "k2")
	refused(t, "one that was heard", err, errs.Conflict, "is alive")
}

// TestTwoWorkersAtOneAddress: the second is refused while the first lives; and the first, if it is
// back only after another has taken its place.
func TestTwoWorkersAtOneAddress(t *testing.T) {
	e := newEnrolling(t)
	for _, w := range []fleet.WorkerID{"w1", "w2"} {
		e.must(w, e.token(w), "k of "+string(w))
	}
	if err := e.join("w1", "fd00::1", "https://[fd00::1]:7600"); err != nil {
		t.Fatal(err)
	}
	refused(t, "a second worker", e.join("w2", "fd00::1", "https://[fd00::1]:7601"),
		errs.Conflict, "worker w1 is alive at address fd00::1")
	if _, err := e.Worker(t.Context(), "w2"); !errs.Is(err, errs.NotFound) {
		t.Errorf("it was refused and is there: %v", err)
	}
	for range 200 { // the first is silent for long
		e.now = e.now.Add(time.Second)
		e.Tick()
	}
	if err := e.join("w2", "fd00::1", "https://[fd00::1]:7601"); err != nil {
		t.Fatalf("after the first is down: %v", err)
	}
	report := func(w fleet.WorkerID, sequence int64) error {
		return e.Report(t.Context(), fleet.WorkerReport{Worker: w, Boot: "b", Sequence: sequence})
	}
	if err := report("w2", 1); err != nil {
		t.Fatal(err)
	}
	refused(t, "the first reports again", report("w1", 1), errs.NotFound, "has to join again")
	refused(t, "the first joins again", e.join("w1", "fd00::1", "https://[fd00::1]:7600"),
		errs.Conflict, "worker w2 is alive at address fd00::1")
	if _, err := e.RevokeWorker(t.Context(), "w2", ""); err != nil {
		t.Fatal(err)
	}
	if err := e.join("w1", "fd00::1", "https://[fd00::1]:7600"); err != nil {
		t.Errorf("after the second was revoked: %v", err)
	}
}

// TestRotationWaitsForWorkers: what would shut a worker out is refused until all have followed, but
// not for those that are revoked, and not by force. Workers hear of each step at once.
func TestRotationWaitsForWorkers(t *testing.T) {
	e := newEnrolling(t)
	for n, w := range []fleet.WorkerID{"w1", "w2"} {
		e.must(w, e.token(w), "k of "+string(w))
		at := fmt.Sprintf("fd00::%d", n+1)
		if err := e.join(w, at, "https://["+at+"]:7600"); err != nil {
			t.Fatal(err)
		}
	}
	sequence := int64(0)
	report := func(w fleet.WorkerID, version string) {
		t.Helper()
		sequence++
		if err := e.Report(t.Context(), fleet.WorkerReport{Worker: w, Boot: "b",
			Sequence: sequence, Authority: version}); err != nil {
			t.Fatal(err)
		}
	}
	set, err := e.Assignments(t.Context(), "w1", 0)
	if err != nil || set.Authority != "v0" {
		t.Fatalf("%q, %v", set.Authority, err)
	}
	if _, err := e.RotateAuthority(t.Context(), "begin", false); err != nil {
		t.Fatal(err)
	}
	if set, err = e.Assignments(t.Context(), "w1", set.Revision); err != nil ||
		set.Authority != "v1" {
		t.Errorf("after the first step workers hear of %q, %v", set.Authority, err)
	}
	report("w1", "v1")
	report("w2", "v0")
	_, err = e.RotateAuthority(t.Context(), "switch", false)
	refused(t, "w2 has not followed", err, errs.Conflict, "last change: w2")
	v, err := e.Authority(t.Context())
	if err != nil || fmt.Sprint(v.Current, v.Behind) != "[w1] [w2]" {
		t.Errorf("%+v, %v", v, err)
	}
	report("w2", "v1")
	if _, err := e.RotateAuthority(t.Context(), "switch", false); err != nil {
		t.Errorf("all have followed: %v", err)
	}
	if _, err := e.RotateAuthority(t.Context(), "finish", true); err != nil {
		t.Errorf("by force: %v", err)
	}
	report("w1", "v3")
	if _, err := e.RevokeWorker(t.Context(), "w2", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := e.RotateAuthority(t.Context(), "finish", false); err != nil {
		t.Errorf("only a revoked worker is behind: %v", err)
	}
	if _, err := e.RotateAuthority(t.Context(), "jump", false); !errs.Is(err, errs.Invalid) {
		t.Errorf("no such step: %v", err)
	}
}

// TestALivingWorkerKeepsItsName, its address and its API, whatever token another has.
func TestALivingWorkerKeepsItsName(t *testing.T) {
	e := newEnrolling(t)
	first := e.must("w1", e.token("w1"), "k1")
	if err := e.join("w1", "fd00::1", "https://[fd00::1]:7600"); err != nil {
		t.Fatal(err)
	}
	token := e.token("w1")
	_, err := e.enroll("w1", token, "k2")
	refused(t, "a second worker of that name", err, errs.Conflict, "is alive")
	if err := e.CheckWorker("w1", first); err != nil {
		t.Errorf("the refused one shut the first out: %v", err)
	}
	for url, c := range map[string]struct {
		address string
		kind    errs.Kind
		says    string
	}{
		"https://[fd00::1]:18999":          {"fd00::1", errs.Conflict, "is alive"},
		"https://[fd00::2]:7600":           {"fd00::2", errs.Conflict, "is alive"},
		"https://127.0.0.1:18999":          {"fd00::1", errs.Invalid, "not the worker's address"},
		"https://[fd00::1]@evil.test:7600": {"fd00::1", errs.Invalid, "worker w1"},
		"http://[fd00::1]:7600":            {"fd00::1", errs.Invalid, "not at an https URL"},
		"https://":                         {"fd00::1", errs.Invalid, "not at an https URL"},
	} {
		refused(t, url, e.join("w1", c.address, url), c.kind, c.says)
	}
	if err := e.join("w1", "fd00::1", "https://[fd00::1]:7600"); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for range 200 { // it is silent for long
		e.now = e.now.Add(time.Second)
		e.Tick()
	}
	if e.must("w1", e.token("w1"), "k3") <= first {
		t.Error("no newer term")
	}
	if err := e.join("w1", "fd00::2", "https://[fd00::2]:7600"); err != nil {
		t.Errorf("after the first is down: %v", err)
	}
	refused(t, "the first, when it is back", e.CheckWorker("w1", first), errs.Denied,
		"joined again")
}
