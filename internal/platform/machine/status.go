package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// saved is the state that a later platformd of this VM needs. It is on a tmpfs, so it ends with the
// VM.
type saved struct {
	Health  guestapi.Health   `json:"health"`
	Bind    *guestapi.Bind    `json:"bind,omitempty"`
	Prepare *guestapi.Prepare `json:"prepare,omitempty"`
	// ReleaseAsked: the worker has asked for the machine's release.
	ReleaseAsked bool `json:"release,omitempty"`
	// Stopped are the services that were stopped on request, and stay stopped.
	Stopped []string `json:"stopped,omitempty"`
	// Restarts of each service so far.
	Restarts map[string]int `json:"restarts,omitempty"`
}

// status is the platform's whole state, on file and in memory. Safe for concurrent use.
type status struct {
	path string

	// write is the lock of the file's writers. Readers never take it.
	write sync.Mutex

	mu      sync.Mutex
	now     saved
	changed chan struct{} // closed at the next change
}

func loadStatus(path string, cfg Config) (*status, error) {
	s := &status{path: path, changed: make(chan struct{})}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		at := time.Now()
		s.now.Health = guestapi.Health{State: guestapi.StateEmpty, Since: at,
			Timeline: map[guestapi.State]time.Time{guestapi.StateEmpty: at}}
	case err != nil:
		return nil, fmt.Errorf("read platform state: %w", err)
	default:
		if err := json.Unmarshal(data, &s.now); err != nil {
			return nil, errs.Wrap(errs.Corrupt, err, "read platform state")
		}
	}
	s.now.Health.VM, s.now.Health.Version, s.now.Health.Platform = cfg.Boot.VM,
		cfg.Version, cfg.Restarts
	return s, s.update(func(*saved) {})
}

// get returns the state, and a channel that is closed at its next change.
func (s *status) get() (saved, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copyLocked(), s.changed
}

// copyLocked copies the parts that change functions modify in place.
func (s *status) copyLocked() saved {
	c := s.now
	timeline := make(map[guestapi.State]time.Time, len(c.Health.Timeline))
	for k, v := range c.Health.Timeline {
		timeline[k] = v
	}
	restarts := make(map[string]int, len(c.Restarts))
	for k, v := range c.Restarts {
		restarts[k] = v
	}
	c.Health.Timeline, c.Restarts = timeline, restarts
	c.Health.Services, c.Health.Steps = slices.Clone(c.Health.Services),
		slices.Clone(c.Health.Steps)
	c.Stopped = slices.Clone(c.Stopped)
	return c
}

// update changes the state and returns once the file has it. Others see the change only then.
func (s *status) update(change func(*saved)) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	next := s.copyLocked()
	s.mu.Unlock()
	change(&next)
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode platform state: %w", err)
	}
	// On a tmpfs a rename is atomic, and there is nothing to sync.
	if err := os.WriteFile(s.path+".new", data, 0o600); err != nil {
		return fmt.Errorf("write platform state: %w", err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		return fmt.Errorf("write platform state: %w", err)
	}
	s.mu.Lock()
	s.now = next
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	return nil
}

// touch returns once the state's locks are free.
func (s *status) touch() {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
}

// reach advances the state. It does nothing if the state is later or final already.
func reach(s *saved, st guestapi.State) {
	if s.Health.State.Final() || !s.Health.State.Before(st) {
		return
	}
	setState(s, st)
}

func setState(s *saved, st guestapi.State) {
	s.Health.State, s.Health.Since = st, time.Now()
	if _, ok := s.Health.Timeline[st]; !ok {
		s.Health.Timeline[st] = s.Health.Since
	}
}

// end makes the state final, with err as its reason, unless it is final already.
func end(s *saved, st guestapi.State, err error) {
	if s.Health.State.Final() {
		return
	}
	setState(s, st)
	if err != nil {
		s.Health.ErrorKind, s.Health.Error, s.Health.Remedy = string(errs.KindOf(err)), err.Error(),
			errs.RemedyOf(err)
	}
}

// setDisk copies blockd's report of the disk, and keeps the fields that blockd doesn't set.
func setDisk(s *saved, said fleet.DiskReport) {
	said.Ungrown = s.Health.Disk.Ungrown
	s.Health.Disk = said
}

// describe sets the machine's identity in the state.
func describe(s *saved, b guestapi.Bind) {
	s.Bind = &b
	s.Health.Machine, s.Health.Generation, s.Health.Instance = b.Machine, b.Generation, b.Instance
	s.Health.Services = nil
	for _, svc := range b.Config.Services {
		s.Health.Services = append(s.Health.Services,
			fleet.ServiceReport{Name: svc.Name, State: "stopped"})
	}
}
