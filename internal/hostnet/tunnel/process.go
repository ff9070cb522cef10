package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// childArg0 is the argv[0] by which this program knows that it has to be a tunnel's process.
	childArg0  = "sluice-tunnel"
	listenerFD = 3
	statusFD   = 4
	socketName = "tunnel.sock"
	// startTimeout is for a host under pressure: a start takes some 20 ms.
	startTimeout = 30 * time.Second
)

// Child must be called at the beginning of main. It returns at once, except in a process that Open
// has started to have a tunnel: there it returns never.
func Child() {
	if len(os.Args) != 4 || os.Args[0] != childArg0 {
		return
	}
	status := os.NewFile(statusFD, "status")
	if err := serveTunnel(os.Args[1], os.Args[2], status); err != nil {
		_, _ = io.WriteString(status, err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// serveTunnel has the interface until somebody deletes it.
func serveTunnel(name, mtu string, status *os.File) error {
	unix.CloseOnExec(listenerFD)
	unix.CloseOnExec(statusFD)
	bytes, err := strconv.Atoi(mtu)
	if err != nil {
		return fmt.Errorf("MTU of tunnel %s: %w", name, err)
	}
	listener, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		return fmt.Errorf("listen for tunnel %s: %w", name, err)
	}
	link, err := tun.CreateTUN(name, bytes)
	if err != nil {
		return fmt.Errorf("make interface %s: %w", name, err)
	}
	dev := device.NewDevice(link, conn.NewDefaultBind(),
		device.NewLogger(device.LogLevelError, "tunnel: "))
	defer dev.Close()
	if _, err := status.Write([]byte{readyByte}); err != nil {
		return errors.New("the worker went away") // and has not recorded that there is a tunnel
	}
	_ = status.Close()
	var g errgroup.Group
	g.Go(func() error { return answer(listener, dev) })
	<-dev.Wait()
	return errors.Join(listener.Close(), g.Wait())
}

const readyByte = 'r'

// answer serves the worker, one connection after the other: they are few and short.
func answer(listener net.Listener, dev *device.Device) error {
	for {
		c, err := listener.Accept()
		if err != nil {
			return nil // closed, as the interface has gone
		}
		if err := c.SetDeadline(time.Now().Add(uapiTimeout)); err != nil {
			return fmt.Errorf("bound a question: %w", err)
		}
		dev.IpcHandle(c)
	}
}

// inside runs fn on a thread in a network namespace, which ends with it. A process that fn starts
// is in that namespace.
func inside(ns netns.NsHandle, fn func() error) error {
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread() // for ever: nobody else may get this thread
		if err := netns.Set(ns); err != nil {
			return errs.Wrap(errs.Internal, err, "enter the network namespace")
		}
		return fn()
	})
	return g.Wait()
}

// startProcess makes the interface, in a process of its own in the calling thread's network
// namespace.
func startProcess(cfg Config) error {
	listener, err := listenAt(cfg.Dir)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "make the socket of tunnel %s", cfg.Name)
	}
	defer listener.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return errs.Wrap(errs.Exhausted, err, "make a pipe")
	}
	defer statusR.Close()
	// It outlives the worker, as VMs do: its life is bound to no context.
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	// The directory tells people whose it is.
	cmd.Args = []string{childArg0, cfg.Name, strconv.Itoa(cfg.MTU), cfg.Dir}
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{listener, statusW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = statusW.Close()
	if err != nil {
		return errs.Wrap(errs.Internal, err, "start the process of tunnel %s", cfg.Name)
	}
	if err := statusR.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return errs.Wrap(errs.Internal, err, "bound the start of tunnel %s", cfg.Name)
	}
	b, err := io.ReadAll(io.LimitReader(statusR, 4096))
	if err == nil && len(b) == 1 && b[0] == readyByte {
		return cmd.Process.Release()
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err == nil {
		err = errors.New(string(b))
	}
	return errs.Wrap(errs.Unsupported, err, "make tunnel %s", cfg.Name).
		WithRemedy("the kernel needs WireGuard or TUN devices: modprobe wireguard, or modprobe tun")
}

// listenAt makes the socket in dir. A path of any length works, by way of the directory's
// descriptor.
func listenAt(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	addr := &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName)}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}

// dialer returns how the process with a socket in dir is reached.
func dialer(dir string) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		d, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix",
			Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName)})
	}
}
