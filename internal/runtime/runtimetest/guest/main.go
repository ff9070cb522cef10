// Command guest is what runs as init in the VMs of the conformance suite: it does what it is told
// over the control stream, one JSON request and one JSON answer per connection, and reports what it
// sees.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// request is one command; which fields count depends on Op.
type request struct {
	Op     string
	Text   string
	Number int64
	Path   string
	Data   []byte
}

type answer struct {
	Error  string
	Text   string
	Number int64
	Data   []byte
	Seen   *seen
}

func main() {
	atStart := look()
	if len(os.Args) > 2 {
		if err := child(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "guest child:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("guest: up")
	if err := os.WriteFile(guestapi.WarmFile, nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	if err := serve(ctx, atStart); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, atStart seen) error {
	l, err := net.Listen("tcp6", net.JoinHostPort("::", strconv.Itoa(guestapi.ControlPort)))
	if err != nil {
		return err
	}
	var g errgroup.Group
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		g.Go(func() error {
			defer func() { _ = conn.Close() }()
			var req request
			if json.NewDecoder(conn).Decode(&req) != nil {
				return nil
			}
			ans, err := do(req, atStart)
			if err != nil {
				ans.Error = err.Error()
			}
			return json.NewEncoder(conn).Encode(ans)
		})
	}
}

func do(req request, atStart seen) (answer, error) {
	switch req.Op {
	case "echo":
		return answer{Text: req.Text}, nil
	case "look":
		return answer{Seen: &atStart}, nil
	case "read-file":
		b, err := os.ReadFile(req.Path)
		return answer{Data: b}, err
	case "read-at":
		return readAt(req)
	case "write-at":
		return answer{}, writeAt(req)
	case "size":
		return size(req.Path)
	case "mknod":
		return answer{}, unix.Mknod(req.Path, unix.S_IFCHR|0o600, int(req.Number))
	case "print":
		_, err := fmt.Println(req.Text)
		return answer{}, err
	case "clock":
		return answer{Number: time.Now().UnixNano()}, nil
	case "spin":
		return spin(time.Duration(req.Number))
	case "child": // Text is its mode, Path its argument
		return runChild(req.Text, req.Path)
	case "spawn":
		return spawn(req.Text, req.Path, int(req.Number))
	case "dial-host":
		return dialHost(req, true)
	case "ask-host": // as dial-host, but it is the host that ends the stream
		return dialHost(req, false)
	case "stall":
		return stall(req.Text)
	case "walls":
		return wallsAnswer(), nil
	case "exit":
		os.Exit(int(req.Number))
	}
	return answer{}, fmt.Errorf("no such operation %q", req.Op)
}

func readAt(req request) (answer, error) {
	f, err := os.Open(req.Path)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, len(req.Data))
	_, err = f.ReadAt(b, req.Number)
	return answer{Data: b}, err
}

func writeAt(req request) error {
	f, err := os.OpenFile(req.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(req.Data, req.Number); err != nil {
		return err
	}
	return f.Sync()
}

func size(path string) (answer, error) {
	f, err := os.Open(path)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = f.Close() }()
	n, err := f.Seek(0, io.SeekEnd)
	return answer{Number: n}, err
}

// spin burns two threads' worth of CPU for a while and returns the CPU time that it got, in ns.
func spin(wall time.Duration) (answer, error) {
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return answer{}, err
	}
	var g errgroup.Group
	end := time.Now().Add(wall)
	for range 2 {
		g.Go(func() error {
			for time.Now().Before(end) {
				for range 1000 {
					_ = strings.Repeat("x", 16)
				}
			}
			return nil
		})
	}
	_ = g.Wait()
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return answer{}, err
	}
	return answer{Number: after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() -
		before.Stime.Nano()}, nil
}

// runChild runs this program as a child and says how it ended; Number is the signal that killed it.
func runChild(mode, arg string) (answer, error) {
	cmd := exec.Command("/proc/self/exe", mode, arg)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return answer{}, err
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return answer{Number: int64(status.Signal()), Text: cmd.ProcessState.String()}, nil
	}
	return answer{Text: cmd.ProcessState.String()}, nil
}

// spawn starts n children, each in a session of its own, and leaves them alone. Number is the last
// pid.
func spawn(mode, arg string, n int) (answer, error) {
	var last int
	for range n {
		cmd := exec.Command("/proc/self/exe", mode, arg)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return answer{}, err
		}
		last = cmd.Process.Pid
	}
	return answer{Number: int64(last)}, nil
}

// dialHost sends a text to a port of the worker's end of the link and returns what comes back.
func dialHost(req request, halfClose bool) (answer, error) {
	host := guestapi.HostLinkIP + "%" + guestapi.LinkName
	conn, err := net.DialTimeout("tcp6", net.JoinHostPort(host, strconv.FormatInt(req.Number, 10)),
		5*time.Second)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, req.Text); err != nil {
		return answer{}, err
	}
	if halfClose {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return answer{}, err
		}
	}
	b, err := io.ReadAll(conn)
	return answer{Text: string(b)}, err
}

// child is what this program does as a child of itself.
func child(mode, arg string) error {
	switch mode {
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		time.Sleep(d)
		return nil
	case "allocate":
		mib, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		// where there is most of what a VM has
		if err := memcg.EnterBeside(guestapi.BlockdCgroup); err != nil {
			return err
		}
		b := make([]byte, mib<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return nil
	case "serve-disk":
		return serveDisk(arg)
	case "walls": // as on a host without walls
		fmt.Print(wallsAnswer().Text)
		return nil
	case "write-disk":
		return writeDisk(arg)
	}
	return fmt.Errorf("no such mode %q", mode)
}
