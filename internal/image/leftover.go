package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// leftover names files of the host that built a tree, or of the machine that it was copied from. No
// image has them: the platform or the first boot makes them anew, or nobody needs them.
type leftover struct {
	// as of path.Match, in the tree; a directory stands for all plain files below it
	pattern string
	empty   bool           // the file stays, with its owner and mode, and without content
	holds   *regexp.Regexp // only a file with such a line
}

// leftovers lists all files that are left out of an image, whatever its source. /etc/machine-id
// isn't listed: every image has an empty one, which makes systemd write a new one.
func leftovers() []leftover {
	return []leftover{
		// What each machine has of its own.
		{pattern: "etc/ssh/ssh_host_*_key"}, {pattern: "etc/ssh/ssh_host_*_key.pub"},
		{pattern: "var/lib/systemd/random-seed"}, {pattern: "var/lib/urandom/random-seed"},
		{pattern: "var/lib/dbus/machine-id"}, {pattern: "etc/machine-id"},
		{pattern: "var/lib/dhcp/*.leases"}, {pattern: "root/.bash_history"},
		// How the builder reaches the network, and as whom.
		{pattern: "etc/resolv.conf"}, {pattern: "etc/hosts"}, {pattern: "etc/hostname"},
		{pattern: "etc/apt/apt.conf", holds: aptProxy},
		{pattern: "etc/apt/apt.conf.d/*", holds: aptProxy},
		{pattern: "etc/apt/auth.conf"}, {pattern: "etc/apt/auth.conf.d/*"},
		// What package managers fetch or keep for themselves.
		{pattern: "var/cache/apt/*.bin"}, {pattern: "var/cache/apt/archives"},
		{pattern: "var/lib/apt/lists"},
		{pattern: "var/cache/debconf/*-old"}, {pattern: "var/lib/dpkg/*-old"},
		{pattern: "var/cache/ldconfig/aux-cache"},
		// What was logged while the tree was made. Programs may count on files that packages have
		// made.
		{pattern: "var/log/bootstrap.log"}, {pattern: "var/log/dpkg.log"},
		{pattern: "var/log/alternatives.log"},
		{pattern: "var/log/apt"}, {pattern: "var/log", empty: true},
	}
}

// aptProxy matches a line of an apt configuration that sets a proxy, or how one is found.
var aptProxy = regexp.MustCompile(`(?i)^[^#/]*\bproxy(-auto-detect)?\b`)

// dropLeftovers removes from a file system what leftovers lists of the tree that it was made from.
func dropLeftovers(ctx context.Context, raw, tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open the tree")
	}
	defer root.Close()
	script, dropped, err := dropScript(root)
	if err != nil {
		return err
	}
	if info, err := root.Lstat("etc"); err == nil && info.IsDir() {
		script += "cd /etc\nwrite /dev/null machine-id\nsif machine-id mode 0100444\n"
		for _, stamp := range []string{"atime", "ctime", "mtime", "crtime"} {
			script += fmt.Sprintf("sif machine-id %s @%s\n", stamp, epoch)
		}
	}
	if script == "" {
		return nil
	}
	if err := debugfs(ctx, raw, script); err != nil || !dropped {
		return err
	}
	// Their content is still in free blocks, which every machine of this image could read.
	return frontend.DiscardFree(ctx, raw, fakeTime())
}

// dropScript returns the commands for debugfs, and whether any of them frees something.
func dropScript(root *os.Root) (string, bool, error) {
	var script strings.Builder
	seen := map[string]bool{}
	for _, l := range leftovers() {
		names, err := plainFiles(root, l)
		if err != nil {
			return "", false, err
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			quoted, err := quote(name)
			if err != nil {
				return "", false, err
			}
			if l.empty {
				fmt.Fprintf(&script, "punch %s 0\nsif %s size 0\n", quoted, quoted)
			} else {
				fmt.Fprintf(&script, "rm %s\n", quoted)
			}
		}
	}
	return script.String(), len(seen) > 0, nil
}

// plainFiles returns the files that l names. It leaves links alone, and follows none out of the
// tree.
func plainFiles(root *os.Root, l leftover) ([]string, error) {
	found, err := fs.Glob(root.FS(), l.pattern)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "look for %s", l.pattern)
	}
	var names []string
	for _, name := range found {
		info, err := root.Lstat(name)
		switch {
		case err != nil:
			return nil, errs.Wrap(errs.Unavailable, err, "look at %s", name)
		case info.IsDir() && name == l.pattern:
			err = fs.WalkDir(root.FS(), name, func(name string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() {
					names = append(names, name)
				}
				return err
			})
		case info.Mode().IsRegular():
			names = append(names, name)
		}
		if err != nil {
			return nil, errs.Wrap(errs.Unavailable, err, "look through %s", name)
		}
	}
	return matching(root, names, l)
}

// matching returns those of names that aren't empty and, if l asks for that, have a matching line.
func matching(root *os.Root, names []string, l leftover) ([]string, error) {
	var kept []string
	for _, name := range names {
		info, err := root.Lstat(name)
		if err == nil && l.empty && info.Size() == 0 {
			continue
		}
		ok := err == nil
		if ok && l.holds != nil {
			ok, err = holdsLine(root, name, l.holds)
		}
		if err != nil {
			return nil, errs.Wrap(errs.Unavailable, err, "look at %s", name)
		}
		if ok {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

func holdsLine(root *os.Root, name string, line *regexp.Regexp) (bool, error) {
	f, err := openPlain(root, name, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for r := bufio.NewReader(io.LimitReader(f, maxDocument)); ; {
		text, err := r.ReadString('\n')
		if line.MatchString(text) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// quote quotes a name as one word for debugfs.
func quote(name string) (string, error) {
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return "", errs.New(errs.Invalid, "file name %q in the tree", name).
			WithRemedy("rename or remove it: files in %s don't get into an image", path.Dir(name))
	}
	return `"/` + strings.ReplaceAll(name, `"`, `""`) + `"`, nil
}
