package diskapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// Server answers on a unix socket.
type Server struct {
	socket string
	listen net.Listener
	http   *http.Server
}

// Listen takes a socket, also where a process that was killed has left one. What is asked from then
// on waits for Run. Unavailable: the place can't be had.
func Listen(ctx context.Context, socket string, h http.Handler) (*Server, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errs.Wrap(errs.Unavailable, err, "remove an old socket")
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "listen on %s", socket)
	}
	return &Server{socket: socket, listen: l,
		http: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}}, nil
}

// Run answers until ctx ends, and cuts off what is being asked then.
func (s *Server) Run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := s.http.Serve(s.listen); !errors.Is(err, http.ErrServerClosed) {
			return errs.Wrap(errs.Unavailable, err, "serve %s", s.socket)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		return s.http.Close()
	})
	return g.Wait()
}

// Handler answers what is asked of a disk.
func Handler(at Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathStats,
		Answering(func(context.Context, struct{}) (disk.Stats, error) {
			d, err := at.Disk()
			if err != nil {
				return disk.Stats{}, err
			}
			return d.Stats(), nil
		}))
	mux.HandleFunc("GET "+PathCheckpoints,
		Answering(func(ctx context.Context, _ struct{}) ([]api.DiskCheckpoint, error) {
			return checkpoints(ctx, at)
		}))
	mux.HandleFunc("POST "+PathCheckpoint, func(w http.ResponseWriter, r *http.Request) {
		p, err := checkpoint(r.Context(), at, r.PathValue("name"))
		answer(w, p, err)
	})
	mux.HandleFunc("POST "+PathMode, Answering(changing(at, Changer.SetMode)))
	mux.HandleFunc("POST "+PathSize, Answering(changing(at,
		func(c Changer, ctx context.Context, s Size) error { return c.Grow(ctx, s.Bytes) })))
	mux.HandleFunc("POST "+PathStall,
		Answering(func(ctx context.Context, known Stall) (Stall, error) {
			d, err := at.AwaitDisk(ctx)
			if err != nil {
				return Stall{}, err
			}
			return awaitStall(ctx, d, known)
		}))
	return mux
}

func checkpoint(ctx context.Context, at Source, name string) (api.DiskCheckpoint, error) {
	d, err := at.Disk()
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	p, err := d.Checkpoint(ctx, name)
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	return toAPI(p), nil
}

func checkpoints(ctx context.Context, at Source) ([]api.DiskCheckpoint, error) {
	d, err := at.Disk()
	if err != nil {
		return nil, err
	}
	found, err := d.Checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]api.DiskCheckpoint, 0, len(found))
	for _, p := range found {
		all = append(all, toAPI(p))
	}
	return all, nil
}

func toAPI(p *format.Checkpoint) api.DiskCheckpoint {
	return api.DiskCheckpoint{Name: p.Name, CreatedAt: p.Created}
}

// changing returns what makes a change to the disk, also when who asked has gone: half a change
// would only have to be made again.
func changing[Q any](at Source, change func(Changer, context.Context, Q) error,
) func(context.Context, Q) (struct{}, error) {
	return func(ctx context.Context, q Q) (struct{}, error) {
		d, err := at.Disk()
		if err != nil {
			return struct{}{}, err
		}
		c, ok := d.(Changer)
		if !ok {
			return struct{}{}, errs.New(errs.Unsupported,
				"the disk of a machine changes neither its mode nor its size while it is attached")
		}
		return struct{}{}, change(c, context.WithoutCancel(ctx), q)
	}
}

// maxBody is how large a request may be.
const maxBody = 64 << 10

// Answering makes a handler of a function from a JSON body, of a POST, to a JSON answer.
func Answering[Q, A any](fn func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if r.Method == http.MethodPost {
			if err := decode(w, r, &q); err != nil {
				answer(w, q, err)
				return
			}
		}
		a, err := fn(r.Context(), q)
		answer(w, a, err)
	}
}

// decode reads a request's body, which no call goes without.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if r.ContentLength == 0 {
		return errs.New(errs.Invalid, "the request has no body, and this call takes one")
	}
	return jsonhttp.Decode(w, r, maxBody, jsonhttp.Lenient, v)
}

// answer sends what was asked for, or why not.
func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		status = errhttp.Status(errs.KindOf(err))
		v = api.ErrorBody{Error: api.Error{Code: string(errs.KindOf(err)), Message: err.Error(),
			Remedy: errs.RemedyOf(err)}}
	}
	jsonhttp.Write(w, status, v)
}

// contentType is that of jsonhttp's answers.
const contentType = "application/json"
