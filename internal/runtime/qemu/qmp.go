package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const monitorSocket = "qmp.sock"

// monitor is a connection to a QEMU's control socket. QEMU serves one at a time; others wait.
type monitor struct {
	conn *net.UnixConn
	in   *bufio.Reader
	stop func() bool
}

// shortPath returns a path of a file in dir that is short enough for a socket's address. It is
// valid until done is called.
func shortPath(dir, name string) (path string, done func(), err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name, func() { _ = unix.Close(fd) }, nil
}

// listenMonitor makes the socket for QEMU to serve on, before QEMU starts.
func listenMonitor(dir string) (*os.File, error) {
	path, done, err := shortPath(dir, monitorSocket)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	_ = l.Close()
	return f, err
}

// openMonitor connects. When ctx ends, the command under way fails.
func openMonitor(ctx context.Context, dir string) (*monitor, error) {
	path, done, err := shortPath(dir, monitorSocket)
	if err != nil {
		return nil, err
	}
	defer done()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn.(*net.UnixConn), in: bufio.NewReader(conn)}
	m.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if _, err := m.in.ReadBytes('\n'); err != nil { // the greeting
		m.close()
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	if err := m.do("qmp_capabilities", nil, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() {
	m.stop()
	_ = m.conn.Close()
}

// do runs a command. Answer may be nil.
func (m *monitor) do(command string, arguments, answer any) error {
	return m.send(command, arguments, answer, nil)
}

// send runs a command and passes a descriptor along, if fds has one.
func (m *monitor) send(command string, arguments, answer any, rights []byte) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode %s: %w", command, err)
	}
	if _, _, err := m.conn.WriteMsgUnix(append(line, '\n'), rights, nil); err != nil {
		return fmt.Errorf("send %s: %w", command, err)
	}
	for {
		line, err := m.in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read answer to %s: %w", command, err)
		}
		var got struct {
			Return json.RawMessage `json:"return"`
			Event  string          `json:"event"`
			Error  *struct {
				Class string `json:"class"`
				Desc  string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			return fmt.Errorf("decode answer to %s: %w", command, err)
		}
		switch {
		case got.Event != "":
			continue
		case got.Error != nil:
			return errs.New(errs.Internal, "QEMU refuses %s: %s", command, got.Error.Desc)
		case answer == nil:
			return nil
		}
		return json.Unmarshal(got.Return, answer)
	}
}

// withMonitor runs fn on a connection to the VM's QEMU.
func (v *vm) withMonitor(ctx context.Context, fn func(*monitor) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.Alive(), cancel)()
	m, err := openMonitor(ctx, v.Dir())
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "reach QEMU of VM %s", v.ID()).WithRemedy("see %s",
			filepath.Join(v.Dir(), qemuLog))
	}
	defer m.close()
	return fn(m)
}
