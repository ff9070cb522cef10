package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	qemuImg  = "qemu-img"
	exitWait = 5 * time.Second // that qemu-img gets after it was told to end
)

// Image is what qemu-img says about an image file.
type Image struct {
	Format string `json:"format"`
	Size   int64  `json:"virtual-size"` // bytes
}

// Probe asks qemu-img about an image. An image that refers to other files is refused as Invalid:
// who reads it would read whatever files of this host it names. So is a format that stands for
// anything but a file.
func Probe(ctx context.Context, file, format string) (Image, error) {
	if err := checkFormat(format); err != nil {
		return Image{}, err
	}
	if err := checkWhole(file, format); err != nil { // qemu-img would open what the image refers to
		return Image{}, err
	}
	named, err := literal(file)
	if err != nil {
		return Image{}, err
	}
	out, err := qemu(ctx, nil, "info", "--output=json", "-f", format, named)
	if err != nil {
		return Image{}, err
	}
	var info struct {
		Image
		Name    string `json:"filename"`
		Backing string `json:"backing-filename"`
		Special struct {
			Data struct {
				DataFile string `json:"data-file"`
				Extents  []struct {
					Name string `json:"filename"`
				} `json:"extents"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return Image{}, errs.Wrap(errs.Internal, err,
			"understand what qemu-img says about %s", file)
	}
	if info.Backing != "" || info.Special.Data.DataFile != "" {
		return Image{}, notWhole(file, format, info.Backing+info.Special.Data.DataFile)
	}
	for _, e := range info.Special.Data.Extents {
		if e.Name != info.Name {
			return Image{}, notWhole(file, format, e.Name)
		}
	}
	return info.Image, nil
}

// literal returns a file's name as qemu-img takes it for nothing but that. In its own notation a
// colon ends the name of a protocol.
func literal(file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", errs.Wrap(errs.Invalid, err, "file %s", file)
	}
	return "file:" + abs, nil
}

// ImportImage copies an image, of which Probe had nothing to say, to a device that reads as zeros
// so far.
func ImportImage(ctx context.Context, dev disk.Device, file, format string,
	progress Progress) error {
	named, err := literal(file)
	if err != nil {
		return err
	}
	err = serve(ctx, nbd.Export{Device: dev}, func(ctx context.Context, uri string) error {
		_, err := qemu(ctx, percent(progress, dev.Size()), "convert", "-p", "-n",
			"--target-is-zero", "-f", format, "-O", "raw", named, uri)
		return err
	})
	if err != nil {
		return err
	}
	return dev.Flush(ctx)
}

// ExportImage copies a device to an image file, of a format that qemu-img writes.
func ExportImage(ctx context.Context, dev disk.Device, file, format string,
	progress Progress) error {
	if err := checkFormat(format); err != nil {
		return err
	}
	named, err := literal(file)
	if err != nil {
		return err
	}
	err = serve(ctx, nbd.Export{Device: dev, ReadOnly: true},
		func(ctx context.Context, uri string) error {
			_, err := qemu(ctx, percent(progress, dev.Size()), "convert", "-p", "-f", "raw", "-O",
				format, uri, named)
			return err
		})
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "write out %s", file)
	}
	return nil
}

// serve runs f while a device is served at a URI, on a socket in a directory of its own.
func serve(ctx context.Context, e nbd.Export,
	f func(ctx context.Context, uri string) error) (err error) {
	dir, err := os.MkdirTemp("", "sluice-nbd-") // nobody else can enter it
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a temporary directory").WithRemedy(
			"set TMPDIR to a directory that can be written")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	socket := filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "listen on %s", socket)
	}
	srv, err := nbd.New(nbd.Config{Exports: []nbd.Export{e}, Logger: slog.New(slog.DiscardHandler)},
		l)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return srv.Run(sctx) })
	ferr := f(ctx, "nbd+unix:///?socket="+socket)
	cancel()
	return errors.Join(ferr, g.Wait())
}

// percent returns a writer that understands what qemu-img -p prints: "    (12.34/100%)\r".
func percent(progress Progress, total int64) io.Writer {
	if progress == nil {
		return nil
	}
	return &percentWriter{progress: progress, total: total}
}

type percentWriter struct {
	progress Progress
	total    int64
	line     []byte
}

// Write implements io.Writer.
func (w *percentWriter) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\r' && c != '\n' {
			if len(w.line) < 64 {
				w.line = append(w.line, c)
			}
			continue
		}
		number, _, ok := strings.Cut(strings.TrimLeft(string(w.line), " ("), "/")
		if f, err := strconv.ParseFloat(number, 64); ok && err == nil {
			w.progress.tell(int64(f/100*float64(w.total)), w.total)
		}
		w.line = w.line[:0]
	}
	return len(p), nil
}

// qemu runs qemu-img and returns its stdout, or copies that to out.
func qemu(ctx context.Context, out io.Writer, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, qemuImg, args...)
	// an interrupt reaches it through us, in order
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = exitWait
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if out != nil {
		cmd.Stdout = out
	}
	err := cmd.Run()
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case errors.Is(err, exec.ErrNotFound):
		return nil, errs.Wrap(errs.Unsupported, err,
			"only raw images are understood without qemu-img").
			WithRemedy("install qemu-utils, or convert to raw elsewhere")
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, errs.Wrap(errs.Unavailable, err, "qemu-img %s: %s", args[0],
		strings.TrimSpace(stderr.String()))
}
