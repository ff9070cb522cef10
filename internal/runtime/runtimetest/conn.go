package runtimetest

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Request is one command to the guest; see guest/main.go for the operations.
type Request struct {
	Op     string
	Text   string
	Number int64
	Path   string
	Data   []byte
}

// Answer is what the guest says; Seen is what it sees of the world.
type Answer struct {
	Error  string
	Text   string
	Number int64
	Data   []byte
	Seen   *Seen
}

// Seen is what init saw when it began.
type Seen struct {
	PID       int
	Hostname  string
	Args, Env []string
	Mounts    []string
	Writable  []string
	Links     map[string]string
	Processes []string
	FDs       map[string]string
	Devices   []string
	Cgroups   []string
	UserNS    string
}

// Ask has the guest do one thing. It waits for the guest to listen, which it may not do at once.
func Ask(ctx context.Context, vm runtime.VM, req Request) (Answer, error) {
	for {
		ans, err := askOnce(ctx, vm, req)
		if !errs.Is(err, errs.Unavailable) || ctx.Err() != nil || !vm.Status().Running {
			return ans, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func askOnce(ctx context.Context, vm runtime.VM, req Request) (Answer, error) {
	conn, err := vm.Dial(ctx)
	if err != nil {
		return Answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() { _ = conn.Close() }()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return Answer{}, err
	}
	var ans Answer
	if err := json.NewDecoder(conn).Decode(&ans); err != nil {
		return Answer{}, err
	}
	if ans.Error != "" {
		return ans, errors.New(ans.Error)
	}
	return ans, nil
}

// mustAsk is Ask for what has to work within 20 s.
func mustAsk(t *testing.T, vm runtime.VM, req Request) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ans, err := Ask(ctx, vm, req)
	if err != nil {
		console, _ := os.ReadFile(vm.ConsolePath())
		t.Fatalf("guest: %s: %v; its console: %s", req.Op, err, console)
	}
	return ans
}
