package httpapi

import (
	"maps"
	"net/http"
	"sync"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// streams counts what is open into machines, by the scopes that have a quota of it. The fleet has
// one server, so what passes here is all there is. Safe for concurrent use.
type streams struct {
	limit func(fleet.QuotaScope, fleet.Quantity) (int64, bool)
	mu    sync.Mutex
	open  map[fleet.QuotaScope]fleet.Amounts
}

func newStreams(q fleet.Quotas) *streams {
	return &streams{limit: q.Limit, open: map[fleet.QuotaScope]fleet.Amounts{}}
}

// enter counts a stream into a machine until leave is called. Exhausted: a scope of the machine is
// at its quota. With bound false it is counted, and never refused.
func (s *streams) enter(m fleet.Machine, what fleet.Quantity, bound bool) (leave func(),
	err error) {
	scopes := fleet.QuotaScopes(m.Network, m.App)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range scopes {
		open := s.open[of][what]
		if limit, ok := s.limit(of, what); ok && bound && open >= limit {
			return nil, fleet.OverQuota(of, what, limit, open, 1)
		}
	}
	one := fleet.Amounts{what: 1}
	s.addLocked(scopes, one, 1)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.addLocked(scopes, one, -1)
	}, nil
}

func (s *streams) addLocked(scopes []fleet.QuotaScope, a fleet.Amounts, times int64) {
	for _, of := range scopes {
		if s.open[of] == nil {
			s.open[of] = fleet.Amounts{}
		}
		if s.open[of].Add(a, times); len(s.open[of]) == 0 {
			delete(s.open, of)
		}
	}
}

func (s *streams) used(of fleet.QuotaScope) fleet.Amounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.open[of])
}

// bounded counts calls as streams into their machines while they last. Operators of the server's
// own file are never refused: with their tokens there must always be a way in.
func (a *API) bounded(what fleet.Quantity, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r)
		leave, err := a.streams.enter(c.machine, what, c.subject.Kind != authz.Operator)
		if err != nil {
			a.auditRefusedExec(r, c, err)
			writeError(w, err)
			return
		}
		defer leave()
		next(w, r)
	}
}
