package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Hole is a wall that is taken out of the source of what is attacked.
type Hole struct {
	Name     string
	File     string // below the root of the repository
	Old, New string // Old must be there once
	Found    []string
}

// target is a running program of test/attack/target.
type target struct {
	network, address string
	pid              int
	about            []byte // what it has said of itself
}

const repository = "../.."

// startTarget builds the program, with holes, and runs it until the test ends.
func startTarget(t *testing.T, what, network string, holes []Hole) *target {
	t.Helper()
	dir := t.TempDir()
	program, overlay := filepath.Join(dir, "target"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, seed(t, dir, holes), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program,
		"./target")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the target: %v: %s", err, out)
	}
	address := filepath.Join(dir, "socket")
	if network == "tcp" {
		address = freeAddress(t)
	}
	//nolint:gosec // what was just built
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, what, network, address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input
		if err := cmd.Wait(); err != nil {
			t.Errorf("the target: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the target says nothing: %v", err)
	}
	return &target{network: network, address: address, pid: cmd.Process.Pid, about: line}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// seed writes the files with holes, and returns what tells the compiler of them.
func seed(t *testing.T, dir string, holes []Hole) []byte {
	t.Helper()
	replace := map[string]string{}
	for i, h := range holes {
		path, err := filepath.Abs(filepath.Join(repository, h.File))
		if err != nil {
			t.Fatal(err)
		}
		from := path
		if before, ok := replace[path]; ok {
			from = before
		}
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), h.Old); n != 1 {
			t.Fatalf("hole %q: %s has its text %d times; change the hole with the code", h.Name,
				h.File, n)
		}
		replace[path] = filepath.Join(dir, fmt.Sprint(i, ".go"))
		if err := os.WriteFile(replace[path],
			[]byte(strings.Replace(string(text), h.Old, h.New, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// dial connects to the target.
func (g *target) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, g.network, g.address)
}

// memory is what the target has resident.
func (g *target) memory() (int64, error) { return residentOf(g.pid) }

func residentOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("the process that is attacked has ended: %w", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// client speaks HTTP with the target.
func (g *target) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _,
		_ string) (net.Conn, error) {
		return g.dial(ctx)
	}}}
}
