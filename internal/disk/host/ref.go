package host

import (
	"context"
	"errors"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Ref is a disk in an open store. It may not exist.
type Ref struct {
	URL    string // as it is always written, so that two names of one disk are alike
	Pool   string // URL of the store
	Path   string
	Store  blob.Store
	LogURL string // where the log of a new one is to be; empty: beside its other objects
}

// Name is what people call a disk, by its path or URL: listings of the kernel and of NBD do.
func Name(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return name[:min(len(name), 48)]
}

// Watch returns a store whose silence is told to somebody.
type Watch func(store blob.Store, name string) blob.Store

// Open opens the store that a disk is in; watch is not asked for one in a directory. An existing
// disk's head decides where its log is: a URL that disagrees is a Conflict.
func Open(ctx context.Context, url string, watch Watch) (*Ref, error) {
	bare, logURL, err := blobs.SplitLogURL(url)
	if err != nil {
		return nil, err
	}
	ref, err := openBare(ctx, bare, watch)
	if err != nil || logURL == "" {
		return ref, err
	}
	ref.LogURL = logURL
	head, err := disk.ReadHead(ctx, ref.Store, ref.Path)
	switch {
	case errs.Is(err, errs.NotFound):
		return ref, nil
	case err == nil && (head.LogStore == nil || head.LogStore.URL != logURL):
		where := "beside its other objects"
		if head.LogStore != nil {
			where = "in " + head.LogStore.URL
		}
		err = errs.New(errs.Conflict, "disk %s has its log %s, and not in %s", ref.URL,
			where, logURL).
			WithRemedy("leave ?log= out: the disk remembers where its log is")
	}
	if err != nil {
		return nil, errors.Join(err, ref.Store.Close())
	}
	return ref, nil
}

func openBare(ctx context.Context, url string, watch Watch) (*Ref, error) {
	pool, path, err := blobs.SplitDiskURL(url)
	if err != nil {
		return nil, err
	}
	canonical, err := blobs.JoinDiskURL(pool, path)
	if err != nil {
		return nil, err
	}
	store, err := blobs.Open(ctx, pool)
	if err != nil {
		return nil, err
	}
	ref := &Ref{URL: canonical, Pool: blobs.Canonical(pool), Path: path, Store: store}
	if !strings.HasPrefix(pool, "file:") { // a directory answers, or the whole host waits for it
		ref.Store = watch(store, ref.Pool)
	}
	return ref, nil
}

// Explain adds to NotFound what disks there are.
func (ref *Ref) Explain(ctx context.Context, err error) error {
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	const most = 5
	var there []string
	parent := ""
	if i := strings.LastIndexByte(ref.Path, '/'); i >= 0 {
		parent = ref.Path[:i+1]
	}
	after := ""
	for len(there) < most { // one request per disk, however many objects it has
		next := ""
		lerr := ref.Store.List(ctx, parent, after, func(e blob.Entry) bool {
			next, _, _ = strings.Cut(strings.TrimPrefix(e.Key, parent), "/")
			return false
		})
		if lerr != nil || next == "" {
			break
		}
		there = append(there, next)
		after = parent + next + "/\xff"
	}
	e := errs.Wrap(errs.NotFound, err, "there is no disk %s", ref.URL)
	if len(there) == 0 {
		return e.WithRemedy("make one: sluice disk create %s --size 8GiB", ref.URL)
	}
	return e.WithRemedy("look among what is there: %s", strings.Join(there, ", "))
}

// CanonicalURL returns the one way to write a disk URL.
func CanonicalURL(url string) (string, error) {
	url, _, err := blobs.SplitLogURL(url)
	if err != nil {
		return "", err
	}
	pool, path, err := blobs.SplitDiskURL(url)
	if err != nil {
		return "", err
	}
	return blobs.JoinDiskURL(pool, path)
}
