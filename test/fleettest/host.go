package fleettest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/identity"
)

// VM is a machine's VM as its worker sees it.
type VM struct{ ID, Machine, Phase string }

// HostRequest sends a request to a worker's own API as the server would, from within that worker's
// network, so that it works for a worker that is cut off.
func (f *Fleet) HostRequest(ctx context.Context, worker, method, path string) ([]byte, error) {
	s, err := f.State()
	if err != nil {
		return nil, err
	}
	var address string
	for _, h := range s.Workers {
		if h.Name == worker {
			address = h.Address
		}
	}
	ca, err := identity.OpenAuthority(identity.AuthorityConfig{Fleet: f.FleetID(),
		Dir: f.AuthorityDir()})
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, addr string) (conn net.Conn, err error) {
		err = f.InHost(worker, func() error {
			conn, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr)
			return err
		})
		return conn, err
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial,
		TLSClientConfig:   identity.ClientConfig(ca.Self(), identity.IsWorker(worker)),
		DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, method,
		"https://"+net.JoinHostPort(address, "7600")+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return body, err
}

// Browser returns a client that checks the server as any program does: by the fleet's authority and
// the address. It sends a token.
func (f *Fleet) Browser(token string) *http.Client {
	f.t.Helper()
	ca, err := os.ReadFile(filepath.Join(f.Dir, client.CAFileName))
	if err != nil {
		f.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		f.t.Fatalf("no certificate in %s", ca)
	}
	return &http.Client{Transport: bearer{token: token, next: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}}
}

type bearer struct {
	token string
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// VMs lists the VMs of machines on a worker, as it sees them itself.
func (f *Fleet) VMs(worker string) ([]VM, error) {
	body, err := f.HostRequest(f.t.Context(), worker, http.MethodGet, "/debug/vms")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			VM     string
			Report *struct{ Machine, Phase string }
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	var vms []VM
	for _, item := range list.Items {
		if item.Report != nil {
			vms = append(vms, VM{ID: item.VM, Machine: item.Report.Machine,
				Phase: item.Report.Phase})
		}
	}
	return vms, nil
}

// KillInVM sends SIGKILL to the processes of a machine's VM on a worker that run the given role of
// the platform: init (the whole VM, where it has a kernel of its own its QEMU), blockd or
// platformd. It reports how many there were.
func (f *Fleet) KillInVM(worker, role string, vm string) int {
	f.t.Helper()
	killed := 0
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, dir := range entries {
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(cgroup), f.CgroupParent(worker)+"/") ||
			!strings.Contains(string(cgroup), vm) {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !hasRole(strings.Split(string(cmdline), "\x00"), role) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			killed++
		}
	}
	return killed
}

func hasRole(args []string, role string) bool {
	if role == "init" && strings.HasPrefix(args[0], "qemu-system-") {
		return true
	}
	if !strings.HasSuffix(args[0], "sluice-init") && args[0] != "init" && args[0] != role {
		return false
	}
	if role == "init" {
		return len(args) < 2 || args[1] == "init" || args[1] == ""
	}
	return len(args) > 1 && args[1] == role || args[0] == role
}
