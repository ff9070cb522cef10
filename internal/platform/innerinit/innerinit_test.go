package innerinit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/platform/ownsync"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestMain runs the init in a process of its own, in its own PID namespace: it reaps every child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == LimitRole {
		Limit(os.Args)
	}
	if os.Getenv("SLUICE_TEST_INNER_INIT") == "" {
		os.Exit(m.Run())
	}
	go func() { // ends with who started it; a signal for that would come with the thread that did
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	l, err := InheritedListener()
	syncs, syncsErr := ownsync.Inherited(innerapi.SyncFD)
	if err = errors.Join(err, syncsErr); err == nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		err = New(Config{Log: log, Syncs: syncs, Grace: 200 * time.Millisecond}).Run(
			context.Background(), l)
	}
	_ = json.NewEncoder(os.Stderr).Encode(err)
	os.Exit(1)
}

func startInit(t *testing.T) *innerapi.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ctl")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	defer f.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SLUICE_TEST_INNER_INIT=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	err = ownsync.Filter(func(syncs *os.File) error {
		cmd.ExtraFiles = []*os.File{f, syncs}
		return cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c := innerapi.NewClient(path)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func sh(script string) innerapi.Start {
	return innerapi.Start{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// run starts a command with its output in a pipe and returns what it wrote and how it ended.
func run(t *testing.T, c *innerapi.Client, id string,
	s innerapi.Start) (string, innerapi.Exit, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p, err := c.Start(ctx, id, s, null, w, w)
	w.Close()
	if err != nil {
		return "", innerapi.Exit{}, err
	}
	defer p.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(ctx)
	return string(out), exit, err
}

func TestExitCodes(t *testing.T) {
	c := startInit(t)
	for name, tc := range map[string]struct {
		start innerapi.Start
		want  innerapi.Exit
		kind  errs.Kind
	}{
		"zero":       {start: sh("exit 0")},
		"seven":      {start: sh("exit 7"), want: innerapi.Exit{Code: 7}},
		"killed":     {start: sh("kill -KILL $$"), want: innerapi.Exit{Code: 137, Signal: 9}},
		"terminated": {start: sh("kill -TERM $$"), want: innerapi.Exit{Code: 143, Signal: 15}},
		"not found": {start: innerapi.Start{Args: []string{"no-such-command"},
			Env: []string{"PATH=/bin"}}, kind: errs.NotFound},
		"no such file":  {start: innerapi.Start{Args: []string{"/no/such"}}, kind: errs.NotFound},
		"directory":     {start: innerapi.Start{Args: []string{"/etc"}}, kind: errs.Denied},
		"not a program": {start: innerapi.Start{Args: []string{"/etc/passwd"}}, kind: errs.Denied},
		"bad directory": {start: innerapi.Start{Args: []string{"/bin/true"}, Dir: "/no/such"},
			kind: errs.Denied},
		"no user": {start: innerapi.Start{Args: []string{"/bin/true"}, User: "nobody-there"},
			kind: errs.Denied},
		"user": {start: innerapi.Start{Args: []string{"sh", "-c",
			"exit $(id -u | tail -c 3)"}, Env: []string{"PATH=/bin"}, User: "1042"},
			want: innerapi.Exit{Code: 42}},
	} {
		var said [2]string
		for i, limit := range []int64{0, 128} {
			tc.start.NoFile = limit
			_, exit, err := run(t, c, name, tc.start)
			if errs.KindOf(err) != tc.kind || exit != tc.want {
				t.Errorf("%s, limit %d: got %+v, %v; want %+v, kind %q", name, limit, exit, err,
					tc.want, tc.kind)
			}
			said[i] = fmt.Sprint(err)
		}
		if said[0] != said[1] {
			t.Errorf("%s: %q, and with a limit %q", name, said[0], said[1])
		}
	}
}

// TestLimitOfOpenFiles: a command has its limit, whoever runs it, and PID 1 keeps its own.
func TestLimitOfOpenFiles(t *testing.T) {
	c := startInit(t)
	s := sh("echo $0 $(ulimit -Sn) $(ulimit -Hn); ls /proc/self/fd")
	s.Args = append(s.Args, "name of it") // sh's $0
	descriptors := ""                     // those without a limit
	want := func(n int64, user, limits string) {
		t.Helper()
		s.NoFile, s.User = n, user
		out, _, err := run(t, c, "limits", s)
		line, open, _ := strings.Cut(out, "\n")
		descriptors = cmp.Or(descriptors, open)
		if line != "name of it "+limits || open != descriptors || err != nil {
			t.Errorf("limit %d of user %q: got %q, %v; want %q and descriptors %q", n, user, out,
				err, limits, descriptors)
		}
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	want(0, "", fmt.Sprintf("%d %d", own.Cur, own.Max))
	want(64, "", "64 64")
	want(64, "1042", "64 64")
	want(int64(own.Max), "", fmt.Sprintf("%d %[1]d", own.Max))
	want(64, "", "64 64")
	s.User, s.NoFile, s.Keep = "1042", int64(own.Max)+1, true
	_, _, err := run(t, c, "too many", s)
	if !errs.Is(err, errs.Denied) || !strings.Contains(fmt.Sprint(err), "open files") {
		t.Errorf("a limit above the hard one: %v", err)
	}
	if all, err := c.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("a command that could not be run is on the list: %v, %v", all, err)
	}
}

func TestFastCommandsAreNeverLost(t *testing.T) {
	c := startInit(t)
	for i := range 200 {
		out, exit, err := run(t, c, "fast", sh("echo out; exit 3"))
		if err != nil || exit.Code != 3 || out != "out\n" {
			t.Fatalf("run %d: %q %+v %v", i, out, exit, err)
		}
	}
}

func TestKeptProcessIsFoundAgain(t *testing.T) {
	c := startInit(t)
	s := sh("trap 'exit 5' TERM; while :; do sleep 0.01; done")
	s.Keep = true
	null, _ := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	defer null.Close()
	p, err := c.Start(t.Context(), "service/a", s, null, null, null)
	if err != nil {
		t.Fatal(err)
	}
	p.Close() // as when platformd dies
	if _, err := c.Start(t.Context(), "service/a", s, null, null,
		null); !errs.Is(errors.Unwrap(err), errs.Conflict) {
		t.Fatalf("second start with the same id: %v", err)
	}
	q, err := c.Watch(t.Context(), "service/a")
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	time.Sleep(50 * time.Millisecond) // for the trap to be in place
	if err := q.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := q.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Fatalf("exit %+v, %v", exit, err)
	}
	// Its exit is there until it's forgotten.
	again, err := c.Watch(t.Context(), "service/a")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if exit, err := again.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Fatalf("exit seen later %+v, %v", exit, err)
	}
	if err := c.Forget(t.Context(), "service/a"); err != nil {
		t.Fatal(err)
	}
	if all, err := c.List(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("after forget: %v, %v", all, err)
	}
}

func TestCallerGoneEndsTheProcess(t *testing.T) {
	c := startInit(t)
	for name, script := range map[string]string{
		"obedient": "sleep 60",
		"stubborn": "trap '' HUP; sleep 60; sleep 60",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Start(t.Context(), name, sh(script), w, w, w)
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		_ = r.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.ReadAll(r); err != nil {
			t.Errorf("%s: still there: %v", name, err)
		}
		r.Close()
	}
}

func TestTerminal(t *testing.T) {
	c := startInit(t)
	s := sh("stty size; test -t 0 && test -t 1 && echo tty")
	s.TTY, s.Rows, s.Cols = true, 24, 81
	p, err := c.Start(t.Context(), "tty", s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer p.Terminal.Close()
	_ = p.Terminal.SetReadDeadline(time.Now().Add(2 * time.Minute))
	out, err := io.ReadAll(p.Terminal)
	if !errors.Is(err, unix.EIO) {
		t.Fatalf("end of terminal: %v", err)
	}
	if got := strings.ReplaceAll(string(out), "\r", ""); got != "24 81\ntty\n" {
		t.Fatalf("terminal says %q", got)
	}
	if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Fatalf("exit %+v %v", exit, err)
	}
}
