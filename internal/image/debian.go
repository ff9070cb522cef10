package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	defaultSuite = "bookworm"
	aptDir       = "/etc/apt"
	killWait     = 10 * time.Second
)

// DebianOptions say which Debian tree.
type DebianOptions struct {
	Suite    string   // default bookworm
	Include  []string // packages beyond the minimal base
	CacheDir string   // where trees are kept, each in a directory of its own
	Mirror   string   // default what this host's own apt is configured with
}

// Debian returns a directory with a minimal Debian of the given suite, made by debootstrap the first time
// and found in the cache afterwards. A tree that was not finished is never used.
func Debian(ctx context.Context, o DebianOptions) (Dir, error) {
	if o.Suite == "" {
		o.Suite = defaultSuite
	}
	o.Include = slices.Sorted(slices.Values(o.Include))
	done := filepath.Join(o.CacheDir, o.cacheName())
	if _, err := os.Stat(done); err == nil {
		return Dir(done), nil
	}
	if o.Mirror == "" {
		mirror, err := aptMirror(aptDir, o.Suite)
		if err != nil {
			return "", err
		}
		o.Mirror = mirror
	}
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "make the cache directory")
	}
	building := done + ".building-" + strings.ToLower(rand.Text()[:8])
	if err := o.bootstrap(ctx, building); err != nil {
		return "", errors.Join(err, os.RemoveAll(building))
	}
	err := os.Rename(building, done)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return Dir(done), os.RemoveAll(building) // another one was faster
	}
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "keep the tree")
	}
	return Dir(done), nil
}

// cacheName follows from what is in the tree.
func (o *DebianOptions) cacheName() string {
	sum := sha256.Sum256([]byte(strings.Join(o.Include, "\n")))
	return fmt.Sprintf("debian-%s-%x", o.Suite, sum[:6])
}

// bootstrap runs debootstrap in a mount namespace of its own, because it mounts things and leaves them there
// when it is killed.
func (o *DebianOptions) bootstrap(ctx context.Context, dir string) error {
	args := []string{"--variant=minbase"}
	if len(o.Include) > 0 {
		args = append(args, "--include="+strings.Join(o.Include, ","))
	}
	cmd := exec.CommandContext(ctx, "debootstrap", append(args, o.Suite, dir, o.Mirror)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	switch err := cmd.Run(); {
	case errors.Is(err, exec.ErrNotFound):
		return errs.Wrap(errs.Unsupported, err, "make a Debian tree").WithRemedy("install debootstrap")
	case err != nil:
		return errs.Wrap(errs.Unavailable, err, "debootstrap: %s", lastLines(out.String(), 5))
	}
	return slim(dir)
}

// slim removes what apt fetches again by itself, and debootstrap's notes.
func slim(dir string) error {
	for _, pattern := range []string{"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*_*", "var/log/bootstrap.log"} {
		found, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "look for %s", pattern)
		}
		for _, file := range found {
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				return errs.Wrap(errs.Unavailable, err, "slim the tree")
			}
		}
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// aptMirror returns the first mirror that apt is configured to get the suite's main component from.
func aptMirror(dir, suite string) (string, error) {
	files := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		if err != nil {
			return "", errs.Wrap(errs.Internal, err, "look for apt sources")
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", errs.Wrap(errs.Unavailable, err, "read apt sources")
		}
		mirror := mirrorInList(string(text), suite)
		if strings.HasSuffix(file, ".sources") {
			mirror = mirrorInSources(string(text), suite)
		}
		if mirror != "" {
			return mirror, nil
		}
	}
	return "", errs.New(errs.NotFound, "apt has no source for Debian %s", suite).WithRemedy("name a mirror")
}

// mirrorInList reads lines such as "deb [options] URI suite component…".
func mirrorInList(text, suite string) string {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if before, rest, ok := strings.Cut(line, "["); ok {
			if _, after, ok := strings.Cut(rest, "]"); ok {
				line = before + after
			}
		}
		f := strings.Fields(line)
		if len(f) >= 4 && f[0] == "deb" && f[2] == suite && slices.Contains(f[3:], "main") {
			return f[1]
		}
	}
	return ""
}

// mirrorInSources reads stanzas of "Field: value" lines.
func mirrorInSources(text, suite string) string {
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := map[string][]string{}
		for line := range strings.Lines(stanza) {
			name, value, ok := strings.Cut(line, ":")
			if ok && !strings.HasPrefix(line, "#") {
				fields[strings.ToLower(strings.TrimSpace(name))] = strings.Fields(value)
			}
		}
		enabled := len(fields["enabled"]) == 0 || fields["enabled"][0] != "no"
		if enabled && slices.Contains(fields["types"], "deb") && slices.Contains(fields["suites"], suite) &&
			slices.Contains(fields["components"], "main") && len(fields["uris"]) > 0 {
			return fields["uris"][0]
		}
	}
	return ""
}
