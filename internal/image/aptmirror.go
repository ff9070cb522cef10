package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

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
	return "", errs.New(errs.NotFound, "apt has no source for Debian %s", suite).
		WithRemedy("name a mirror")
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
		if enabled && slices.Contains(fields["types"], "deb") &&
			slices.Contains(fields["suites"], suite) &&
			slices.Contains(fields["components"], "main") && len(fields["uris"]) > 0 {
			return fields["uris"][0]
		}
	}
	return ""
}

// defaultMirror matches the line of debootstrap's program in which it names its mirror for who
// names none.
var defaultMirror = regexp.MustCompile(`(?m)^DEF_MIRROR="([^"$]+)"`)

// sourcesList returns the /etc/apt/sources.list of an image. Which mirror the builder uses is its
// own business: a mirror is in there only if it was asked for, else the public one that debootstrap
// itself names.
func sourcesList(suite, asked string) string {
	const comment = "# Which packages apt finds.\n"
	if asked != "" {
		return fmt.Sprintf("%sdeb %s %s main\n", comment, asked, suite)
	}
	program, err := exec.LookPath("debootstrap")
	if err == nil {
		var text []byte
		if text, err = os.ReadFile(program); err == nil {
			if m := defaultMirror.FindSubmatch(text); m != nil {
				return fmt.Sprintf("%sdeb %s %s main\n", comment, m[1], suite)
			}
		}
	}
	return comment + "# Name a mirror: deb URL " + suite + " main\n"
}
