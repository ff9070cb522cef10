package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config is what an OCI or Docker image says about how it wants to be run. Machines don't follow it
// yet.
type Config struct {
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	User       string
	StopSignal string
}

func configOf(file *v1.ConfigFile) *Config {
	c := file.Config
	return &Config{Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir,
		User: c.User, StopSignal: c.StopSignal}
}

// note returns a sentence on the parts of the config that machines ignore; "": there are none.
func (c *Config) note() string {
	if c == nil {
		return ""
	}
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	var env []string
	for _, kv := range c.Env {
		if name, _, _ := strings.Cut(kv, "="); name != "PATH" {
			env = append(env, name)
		}
	}
	add("Env", strings.Join(env, " "))
	add("Entrypoint", strings.Join(c.Entrypoint, " "))
	add("Cmd", strings.Join(c.Cmd, " "))
	add("WorkingDir", strings.TrimSuffix(c.WorkingDir, "/"))
	add("User", c.User)
	add("StopSignal", c.StopSignal)
	if len(parts) == 0 {
		return ""
	}
	return "the image's config is kept and not followed: " + strings.Join(parts, "; ") +
		". Give the machine a service with that command, dir and env"
}

const (
	maxID  = 65535 // the last user or group of a machine; its inner container has no more
	nobody = 65534
)

// strangers are files of users or groups that a machine doesn't have. Its root could not even
// remove them.
type strangers struct {
	entries int64 // of the tree, all of them
	count   int
	example string
	script  strings.Builder // for debugfs: they become nobody's
}

// findStrangers returns the strangers in a tree.
func findStrangers(dir string) (*strangers, error) {
	var s strangers
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		s.entries++
		info, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Uid <= maxID && st.Gid <= maxID {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return s.add(name, st.Uid, st.Gid)
	})
	var known *errs.Error
	if err != nil && !errors.As(err, &known) {
		err = errs.Wrap(errs.Unavailable, err, "look through the tree")
	}
	return &s, err
}

func (s *strangers) add(name string, uid, gid uint32) error {
	quoted, err := quote(name)
	if err != nil {
		return err
	}
	if s.count++; s.example == "" {
		s.example = fmt.Sprintf("/%s of %d:%d", name, uid, gid)
	}
	if uid > maxID {
		fmt.Fprintf(&s.script, "sif %s uid %d\n", quoted, nobody)
	}
	if gid > maxID {
		fmt.Fprintf(&s.script, "sif %s gid %d\n", quoted, nobody)
	}
	return nil
}

// note returns a sentence on what was done with them; "": there are none.
func (s *strangers) note() string {
	if s.count == 0 {
		return ""
	}
	return fmt.Sprintf(
		"files of users or groups above %d, which a machine doesn't have, are nobody's (%d) in the image: %d, such as %s",
		maxID, nobody, s.count, s.example)
}

// shellNote returns a sentence if a tree has no shell, else "".
func shellNote(dir string) (string, error) {
	t, err := openTree(dir, bounds{})
	if err != nil {
		return "", err
	}
	defer t.close()
	shell, err := t.open("bin/sh", unix.O_PATH)
	switch {
	case err == nil:
		release(shell)
		return "", nil
	case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) &&
		!errors.Is(err, unix.ELOOP):
		return "", errs.Wrap(errs.Unavailable, err, "look for a shell")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "look at the tree")
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	const some = 6
	top := strings.Join(slices.Clip(names[:min(len(names), some)]), " ")
	return "there is no /bin/sh in it. If it should have one, see that the archive holds the root directory itself; its top has: " + top, nil
}
