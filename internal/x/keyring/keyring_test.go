package keyring_test

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyring"
)

// TestAKeyIsKept until it is replaced, forgotten, or its time is over; and is only listed by name.
func TestAKeyIsKept(t *testing.T) {
	name := t.TempDir()
	k := keyring.New(name)
	t.Cleanup(func() {
		if err := k.Forget(); err != nil {
			t.Error(err)
		}
	})
	must := func(want string) {
		t.Helper()
		got, err := keyring.New(name).Recall() // as another process
		if want == "" && !errs.Is(err, errs.NotFound) || want != "" && string(got) != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	keep := func(what string, ttl time.Duration) {
		t.Helper()
		if err := k.Keep([]byte(what), ttl); err != nil {
			t.Fatal(err)
		}
	}
	must("")
	keep("first-secret", time.Minute)
	must("first-secret")
	keep("second-secret", time.Minute)
	must("second-secret")
	listed, err := os.ReadFile("/proc/keys")
	if err != nil || !bytes.Contains(listed, []byte("sluice:"+name)) ||
		bytes.Contains(listed, []byte("second-secret")) {
		t.Errorf("listed: %s, %v", listed, err)
	}
	if err := k.Forget(); err != nil {
		t.Fatal(err)
	}
	must("")
	keep("third-secret", time.Second)
	must("third-secret")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := k.Recall(); errs.Is(err, errs.NotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it doesn't end by itself")
		}
	}
}

// readByID names a key to a process that tries to read it, and does nothing else.
const readByID = "SLUICE_TEST_KEY_ID"

func TestMain(m *testing.M) {
	if id, err := strconv.Atoi(os.Getenv(readByID)); err == nil {
		if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, make([]byte, 64), 0); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestNobodyElseReadsIt: neither another user nor the root of a user namespace, as a VM's is,
// though this process started them and they share its session; and also where the session has
// nothing of its user's, as those of services.
func TestNobodyElseReadsIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, linked := range map[string]bool{"a session of a login": true,
		"a session of a service": false} {
		var done sync.WaitGroup
		done.Go(func() {
			runtime.LockOSThread() // the thread's session is changed, and it ends with this
			if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
				t.Error(err)
				return
			}
			if linked {
				if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING,
					unix.KEY_SPEC_SESSION_KEYRING, 0, 0); err != nil {
					t.Error(err)
					return
				}
			}
			expectOnlyRoot(t, name)
		})
		done.Wait()
	}
}

func expectOnlyRoot(t *testing.T, session string) {
	path := t.TempDir()
	k := keyring.New(path)
	if err := k.Keep([]byte("secret"), time.Minute); err != nil {
		t.Errorf("%s: %v", session, err)
		return
	}
	defer func() {
		if err := k.Forget(); err != nil {
			t.Error(err)
		}
	}()
	if got, err := k.Recall(); string(got) != "secret" {
		t.Errorf("%s: %q, %v", session, got, err)
	}
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", "sluice:"+path, 0)
	if err != nil {
		t.Error(err)
		return
	}
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	for who, c := range map[string]struct {
		attr  *syscall.SysProcAttr
		reads bool
	}{
		"root": {&syscall.SysProcAttr{}, true},
		"another user": {&syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: 64055, Gid: 64055}}, false},
		"root of a user namespace": {&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: mapping, GidMappings: mapping,
			Credential: &syscall.Credential{}}, false},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.SysProcAttr = []string{readByID + "=" + strconv.Itoa(id)}, c.attr
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 {
			t.Errorf("%s, %s: it did not try: %v %s", session, who, err, out)
		} else if (code == 0) != c.reads {
			t.Errorf("%s: %s reads it: %v", session, who, code == 0)
		}
	}
}
