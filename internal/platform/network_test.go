package platform_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// listenInVM listens on a port of every address of the VM's root namespace.
func (v *testVM) listenInVM(port int) net.Listener {
	v.t.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", v.processes("platformd")[0]))
	if err != nil {
		v.t.Fatal(err)
	}
	defer ns.Close()
	type answer struct {
		l   net.Listener
		err error
	}
	got := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			got <- answer{err: err}
			return
		}
		l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		got <- answer{l, err}
	}()
	a := <-got
	if a.err != nil {
		v.t.Fatal(a.err)
	}
	v.t.Cleanup(func() { a.l.Close() })
	go func() {
		for {
			conn, err := a.l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "reached the VM")
			conn.Close()
		}
	}()
	return a.l
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip",
		append([]string{"-6"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// TestNetwork checks that others reach the machine at its address, and that the machine reaches
// neither the platform nor the store gateway.
func TestNetwork(t *testing.T) {
	id := newDisk(t)
	b := bindOf(id, 1, webService())
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh("echo page > /data/page")

	ip(t, "addr", "add", "fdaa:0:1:0:1:0:9:2/128", "dev", v.HostLink(), "nodad")
	ip(t, "route", "add", b.Address.String()+"/128", "via", guestapi.GuestLinkIP, "dev",
		v.HostLink(), "src", "fdaa:0:1:0:1:0:9:2")
	client := &http.Client{Timeout: 2 * time.Minute}
	resp, err := client.Get(fmt.Sprintf("http://[%s]:8080/page", b.Address))
	if err != nil {
		t.Fatalf("from the worker: %v", err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(text) != "page\n" {
		t.Errorf("from the worker: %q", text)
	}
	v.listenInVM(7799)
	for _, port := range []int{guestapi.ControlPort, guestapi.GatewayPort, 7799} {
		for _, host := range []string{"fe80::1%eth0", "fdaa:0:1:0:1:0:9:2", "::1"} {
			if r := v.exec(shell(fmt.Sprintf("nc -w 1 '%s' %d < /dev/null", host,
				port))); r.code == 0 {
				t.Errorf("user code reaches port %d at %s: %q", port, host, r.stdout)
			}
		}
	}
	// That way of asking does work where it may: on the machine's own link address.
	if r := v.exec(
		shell(
			"printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | nc -w 2 'fe80::2%eth0' 8080")); !strings.Contains(r.stdout, "page") {
		t.Errorf("control of the test: %+v", r)
	}
	if r := v.exec(shell("ping -6 -c 1 -W 2 fdaa:0:1:0:1:0:9:2")); r.code != 0 {
		t.Errorf("no way out over the host link: %+v", r)
	}
	v.release(b)
}
