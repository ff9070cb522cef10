package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/platform/service"
	"github.com/sluice-platform/sluice/internal/platform/servicelog"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// kept is a service's process in the container.
type kept struct {
	*innerapi.Process
	id     string
	client *innerapi.Client
	p      *Platform
	began  time.Time
}

var _ service.Process = (*kept)(nil)

// PID implements service.Process. It is the pid inside the container.
func (k *kept) PID() int { return k.Process.PID }

// Wait implements service.Process.
func (k *kept) Wait(ctx context.Context) (string, error) {
	exit, err := k.Process.Wait(ctx)
	if err != nil {
		return "", err
	}
	return k.p.endWords(ctx, exit, k.began), nil
}

// Forget implements service.Process.
func (k *kept) Forget() {
	k.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// failing that, it stays on the list of a container that is about to end
	_ = k.client.Forget(ctx, k.id)
}

const servicePrefix = "service/"

// startKept starts a service so that it outlives platformd.
func (p *Platform) startKept(ctx context.Context, b guestapi.Bind, svc fleet.Service,
	log *servicelog.Log) (service.Process, error) {
	c := p.container.peek()
	stdout, stderr, err := log.Stdio()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	defer stderr.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	id := servicePrefix + svc.Name + "/" + strconv.FormatInt(time.Now().UnixNano(), 36)
	start := innerapi.Start{Args: svc.Cmd, Env: environment(b, svc.Env), Dir: svc.Dir, Keep: true,
		NoFile: b.Config.NoFile, User: b.Config.User,
		NoNewPrivileges: b.Config.NoNewPrivileges}
	process, err := c.Client().Start(ctx, id, start, null, stdout, stderr)
	if err != nil {
		return nil, err
	}
	return &kept{Process: process, id: id, client: c.Client(), p: p, began: time.Now()}, nil
}

// adoptKept returns the process that a service has already, also if it has ended meanwhile:
// somebody must report its end.
func (p *Platform) adoptKept(ctx context.Context, name string) (service.Process, error) {
	c := p.container.peek()
	all, err := c.Client().List(ctx)
	if err != nil {
		return nil, err
	}
	var found *innerapi.Info
	for _, info := range all {
		if !strings.HasPrefix(info.ID, servicePrefix+name+"/") {
			continue
		}
		if found == nil || info.Exit == nil {
			found = &info
		}
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "service %s isn't running", name)
	}
	process, err := c.Client().Watch(ctx, found.ID)
	if err != nil {
		return nil, err
	}
	// it began before all we know of
	return &kept{Process: process, id: found.ID, client: c.Client(), p: p}, nil
}

// prober runs checks of services from inside the container's network.
type prober struct {
	p    *Platform
	bind guestapi.Bind
}

// Probe implements service.Prober.
func (pr *prober) Probe(ctx context.Context, svc fleet.Service) error {
	now, _ := pr.p.status.get()
	if err := pausedError(now.Health.Stall); err != nil {
		return err
	}
	c := pr.p.container.peek()
	switch svc.Check.Kind {
	case fleet.CheckExec:
		return pr.exec(ctx, c, svc)
	case fleet.CheckHTTP:
		return pr.http(ctx, c, svc)
	default:
		conn, err := c.DialPort(ctx, pr.bind.Address, uint16(svc.CheckPort()))
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// http returns nil for a status below 400 within the check's timeout.
func (pr *prober) http(ctx context.Context, c *inner.Container, svc fleet.Service) error {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.DialPort(ctx, pr.bind.Address, uint16(svc.CheckPort()))
		}}
	path := "/" + strings.TrimPrefix(svc.Check.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+string(pr.bind.Name)+path, nil)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "check path %q", svc.Check.Path)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 400 {
		return errs.New(errs.Unavailable, "check got status %d", resp.StatusCode)
	}
	return nil
}

// exec returns nil if the check's command exits with 0.
func (pr *prober) exec(ctx context.Context, c *inner.Container, svc fleet.Service) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	id := "check/" + svc.Name + "/" + strconv.FormatInt(time.Now().UnixNano(), 36)
	process, err := c.Client().Start(ctx, id, innerapi.Start{Args: svc.Check.Cmd,
		Env: environment(pr.bind, svc.Env), Dir: svc.Dir, NoFile: pr.bind.Config.NoFile,
		User: pr.bind.Config.User, NoNewPrivileges: pr.bind.Config.NoNewPrivileges},
		null, null, w)
	w.Close()
	if err != nil {
		return err
	}
	defer process.Close()
	exit, err := process.Wait(ctx)
	if err != nil {
		_ = process.Signal(unix.SIGKILL)
		return err
	}
	if exit.Code != 0 {
		return errs.New(errs.Unavailable, "check exits with %d: %s", exit.Code, firstLine(r))
	}
	return nil
}

// firstLine returns the first line that can be read now, at most 200 bytes of it.
func firstLine(r *os.File) string {
	_ = r.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	text, err := io.ReadAll(io.LimitReader(r, 200))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(line)
}
