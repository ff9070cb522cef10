package devfleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// State is what Up has done, as kept in dev.json.
type State struct {
	ID        string   `json:"id"`
	StoreURL  string   `json:"store_url"`
	StoreEnv  []string `json:"store_env,omitempty"` // credentials of the fleet's own S3 server
	Runtime   string   `json:"runtime"`
	FrontEnd  string   `json:"front_end,omitempty"` // as Config has it
	Release   string   `json:"release"`
	Binary    string   `json:"binary"`
	Pool      int      `json:"pool"`
	CPUs      int      `json:"cpus"`
	MemoryMiB int      `json:"memory_mib"`
	CacheMiB  int      `json:"cache_mib"`
	ServerURL string   `json:"server_url"` // on loopback, for people
	BridgeURL string   `json:"bridge_url"` // on the bridge, for workers
	Args      []string `json:"args"`       // more arguments of the server
	// WorkerArgs are more arguments of each worker.
	WorkerArgs []string `json:"worker_args,omitempty"`
	OTLP       string   `json:"otlp,omitempty"` // as Config has it
	S3         *Process `json:"s3,omitempty"`   // the fleet's own S3 server
	Server     Process  `json:"server"`
	Workers    []Host   `json:"workers"`
}

// Host is one worker's host.
type Host struct {
	Name    string  `json:"name"`
	Index   int     `json:"index"` // from 1
	Address string  `json:"address"`
	Runtime string  `json:"runtime"`
	Process Process `json:"process"`
}

// ServerHost is the host and port of ServerURL.
func (s *State) ServerHost() string {
	_, host, _ := strings.Cut(s.ServerURL, "://")
	return host
}

func (s *State) host(name string) (*Host, error) {
	known := make([]string, 0, len(s.Workers))
	for i := range s.Workers {
		if s.Workers[i].Name == name {
			return &s.Workers[i], nil
		}
		known = append(known, s.Workers[i].Name)
	}
	return nil, errs.New(errs.NotFound, "this fleet has no worker %q", name).
		WithRemedy("its workers are %v", known)
}

// load returns the content of dev.json, which a fleet has only once Up has begun.
func (l Layout) load() (*State, error) {
	data, err := os.ReadFile(l.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "there is no fleet in %s", l.Dir).
			WithRemedy("bring one up: sluice dev up --dir %s", l.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read fleet: %w", err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "read %s", l.stateFile()).
			WithRemedy("remove the fleet: sluice dev down --dir %s", l.Dir)
	}
	return &s, nil
}

func (l Layout) save(s *State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode fleet: %w", err)
	}
	return atomicfile.Write(l.stateFile(), append(data, '\n'), 0o600)
}
