package attachment

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	logEnding = ".log"
	// KeptLogs is how many logs are kept of attachments that have ended other than in order.
	KeptLogs = 10
	// logStart is how long nothing is written to a log whose attachment may still be on its way to
	// its record.
	logStart = time.Minute
)

// NewLog makes a log for an attachment that has no terminal, open to be read and appended to. Of
// those of others that have ended it removes all but the newest KeptLogs. Whoever ends in order
// removes its own.
func (g *Registry) NewLog(url string) (*os.File, error) {
	if err := g.Prepare(); err != nil {
		return nil, err
	}
	if err := g.dropLogs(); err != nil {
		return nil, err
	}
	at, err := os.CreateTemp(g.dir, urlHash(url)+"-*"+logEnding)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "make a log")
	}
	// so that it can be emptied while others write
	f, err := os.OpenFile(at.Name(), os.O_RDWR|os.O_APPEND, 0)
	_ = at.Close() // nothing was written
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "make a log")
	}
	return f, nil
}

func (g *Registry) dropLogs() error {
	live, _, err := g.List()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return errs.Wrap(errs.Denied, err, "list the logs of attachments")
	}
	var ended []fs.FileInfo
	for _, e := range entries {
		name := filepath.Join(g.dir, e.Name())
		used := func(r Record) bool { return r.Log == name }
		if !strings.HasSuffix(name, logEnding) || slices.ContainsFunc(live, used) {
			continue
		}
		if info, err := e.Info(); err == nil {
			ended = append(ended, info)
		}
	}
	slices.SortFunc(ended, func(a, b fs.FileInfo) int {
		return cmp.Compare(b.ModTime().UnixNano(),
			a.ModTime().UnixNano())
	})
	for _, info := range ended[min(len(ended), KeptLogs):] {
		if time.Since(info.ModTime()) < logStart {
			continue
		}
		if err := os.Remove(filepath.Join(g.dir, info.Name())); err != nil && !os.IsNotExist(err) {
			return errs.Wrap(errs.Denied, err, "remove an old log")
		}
	}
	return nil
}
