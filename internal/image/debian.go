package image

import (
	"bytes"
	"context"
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

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	defaultSuite = "bookworm"
	aptDir       = "/etc/apt"
	killWait     = 10 * time.Second
)

// DebianOptions say which Debian tree.
type DebianOptions struct {
	Suite   string   // default bookworm
	Include []string // packages beyond the minimal base
	// default what this host's own apt is configured with; one that is given is also the tree's
	Mirror string
	Cache  Cache // where trees are kept
	Step   func(what string)
}

// Debian returns a minimal Debian of the given suite, made by debootstrap the first time and found
// in the cache afterwards. With packages it is a copy of that one, to which they are added. A tree
// that was not finished is never used. The caller closes it: until then it stays in the cache.
func Debian(ctx context.Context, o DebianOptions) (*Tree, error) {
	if o.Suite == "" {
		o.Suite = defaultSuite
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	o.Include = slices.Compact(slices.Sorted(slices.Values(o.Include)))
	t, err := o.Cache.open(o.cacheName())
	if !errs.Is(err, errs.NotFound) {
		return t, err
	}
	mirror := o.Mirror
	if mirror == "" {
		if mirror, err = aptMirror(aptDir, o.Suite); err != nil {
			return nil, err
		}
	}
	t, err = o.Cache.add(o.cacheName(), func(dir string) error { return o.fill(ctx, dir, mirror) })
	if err != nil {
		return nil, err
	}
	if _, err := o.Cache.Prune(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// cacheName returns the tree's name in the cache, which depends on everything that is in it.
func (o *DebianOptions) cacheName() string {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{o.Mirror}, o.Include...), "\n")))
	return fmt.Sprintf("debian-%s-%x", o.Suite, sum[:6])
}

// fill makes the tree in a directory that doesn't exist yet.
func (o *DebianOptions) fill(ctx context.Context, dir, mirror string) error {
	if len(o.Include) == 0 {
		return o.bootstrap(ctx, dir, mirror)
	}
	if !strings.HasPrefix(mirror, "http") { // apt in the tree sees no directory of the host
		return o.bootstrap(ctx, dir, mirror)
	}
	base := *o
	base.Include = nil
	from, err := Debian(ctx, base)
	if err != nil {
		return err
	}
	o.Step("copying the minimal Debian")
	err = o.run(ctx, "", "cp", "-a", "--reflink=auto", from.Dir(), dir)
	if err = errors.Join(err, from.Close()); err != nil {
		return err
	}
	return o.install(ctx, dir, mirror)
}

func (o *DebianOptions) bootstrap(ctx context.Context, dir, mirror string) error {
	args := []string{"--variant=minbase"}
	if len(o.Include) > 0 {
		args = append(args, "--include="+strings.Join(o.Include, ","))
	}
	bin, err := ownSync(dir)
	if err != nil {
		return err
	}
	err = o.run(ctx, "PATH="+bin+":"+os.Getenv("PATH"), "debootstrap",
		append(args, o.Suite, dir, mirror)...)
	if err = errors.Join(err, os.RemoveAll(bin)); err != nil {
		return err
	}
	return o.normalize(dir)
}

// ownSync returns a directory with a program sync that is for a PATH: it writes out the file system
// of dir alone. debootstrap ends with a sync, which the kernel would make one of the whole host: it
// would wait for the disks of all machines on it.
func ownSync(dir string) (string, error) {
	program, err := exec.LookPath("sync")
	if err != nil {
		return "", errs.Wrap(errs.Unsupported, err,
			"make a Debian tree").WithRemedy("install coreutils")
	}
	bin, err := os.MkdirTemp("", "sluice-sync-")
	if err != nil {
		return "", errs.Wrap(errs.Exhausted, err, "make a Debian tree")
	}
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' -f '%s'\n", program, filepath.Dir(dir))
	if err := os.WriteFile(filepath.Join(bin, "sync"), []byte(script),
		0o755); err != nil { //nolint:gosec // it is run
		return "", errors.Join(errs.Wrap(errs.Exhausted, err, "make a Debian tree"),
			os.RemoveAll(bin))
	}
	return bin, nil
}

// installScript adds packages to a tree: its own apt, with the host's resolver and certificates, on
// the mirror in use. No service is started. Mounts go with the mount namespace.
const installScript = `set -e
tree=$1; list=$2; shift 2
mount --make-rprivate /
mount -t proc proc "$tree/proc"
mkdir -p "$tree/dev/shm" "$tree/tmp/.sluice"
mount -t tmpfs tmpfs "$tree/dev/shm"
trap 'rm -rf "$tree/tmp/.sluice" "$tree/usr/sbin/policy-rc.d"' EXIT
rm -f "$tree/etc/resolv.conf"
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
echo "$list" >"$tree/tmp/.sluice/sources.list"
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
apt="apt-get -q -o Dir::Etc::SourceList=/tmp/.sluice/sources.list -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=root"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  cp -L /etc/ssl/certs/ca-certificates.crt "$tree/tmp/.sluice/"
  apt="$apt -o Acquire::https::CAInfo=/tmp/.sluice/ca-certificates.crt"
fi
in_tree() { chroot "$tree" /usr/bin/env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
in_tree $apt update
in_tree $apt -y install --no-install-recommends "$@"
`

func (o *DebianOptions) install(ctx context.Context, dir, mirror string) error {
	list := fmt.Sprintf("deb %s %s main", mirror, o.Suite)
	if err := o.run(ctx, "", "sh", append([]string{"-c", installScript, "sh", dir, list},
		o.Include...)...); err != nil {
		return err
	}
	return o.normalize(dir)
}

// run runs a program in a mount namespace of its own, because it mounts things and leaves them
// there when it is killed. extra is one more variable of its environment, or "".
func (o *DebianOptions) run(ctx context.Context, extra, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if extra != "" {
		cmd.Env = append(cmd.Env, extra)
	}
	out := &narrator{step: o.Step}
	cmd.Stdout, cmd.Stderr = out, out
	switch err := cmd.Run(); {
	case errors.Is(err, exec.ErrNotFound):
		return errs.Wrap(errs.Unsupported, err, "make a Debian tree").WithRemedy("install %s", name)
	case err != nil:
		return errs.Wrap(errs.Unavailable, err, "make a Debian tree: %s",
			lastLines(out.text.String(), 5))
	}
	return nil
}

// narrator keeps a program's output, and derives from it the step that the program is at.
type narrator struct {
	step func(string)
	text bytes.Buffer
	told string
	seen int // bytes of text that were looked at
}

// Write implements io.Writer. The program's stdout and stderr are one stream, so that calls don't
// overlap.
func (n *narrator) Write(p []byte) (int, error) {
	n.text.Write(p)
	for {
		rest := n.text.Bytes()[n.seen:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		n.seen += end + 1
		if what := stepOf(string(rest[:end])); what != "" && what != n.told {
			n.told = what
			n.step(what)
		}
	}
}

// stepOf returns the step that a line of debootstrap or apt announces; "": none.
func stepOf(line string) string {
	for _, s := range []struct{ prefix, step string }{
		{"I: Retrieving InRelease", "reading the mirror's index"},
		{"I: Retrieving", "fetching packages"},
		{"I: Extracting", "unpacking the base"}, {"I: Unpacking", "unpacking packages"},
		{"I: Configuring", "configuring packages"},
		{"Reading package lists", "reading the mirror's index"}, {"Get:", "fetching packages"},
		{"Unpacking ", "unpacking packages"}, {"Setting up ", "configuring packages"},
	} {
		if strings.HasPrefix(line, s.prefix) {
			return s.step
		}
	}
	return ""
}

// normalize removes from a tree what depends on the host that built it, beyond what is removed from
// every image (see leftovers).
func (o *DebianOptions) normalize(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "etc/apt/sources.list"),
		[]byte(sourcesList(o.Suite, o.Mirror)),
		0o644); err != nil { //nolint:gosec // everybody reads it
		return errs.Wrap(errs.Unavailable, err, "write apt's sources")
	}
	// No image has these; they need no room in the cache either.
	for _, pattern := range []string{"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin",
		"var/lib/apt/lists/*_*"} {
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
