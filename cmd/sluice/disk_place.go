package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A disk owns all keys below its path: a check, a collection and a destroy take what is there for
// its own. So no disk is made inside another one, or around another.

// headLooks is how many heads are looked for at once, and maxHead how large one of a directory may
// be.
const (
	headLooks = 8
	maxHead   = 1 << 20
)

// mustBeVacant refuses a place inside a disk, one around disks, and one where a disk was whose
// objects forks still need: they would be taken for those of a new disk there.
func mustBeVacant(ctx context.Context, ref *diskRef) error {
	if _, err := disk.ReadHead(ctx, ref.Store, ref.Path); err == nil ||
		!errs.Is(err, errs.NotFound) {
		return err // there is one, and making another says so
	}
	return standsAlone(ctx, ref)
}

// confirmPlace looks again once the disk is made, and removes it if another was made inside or
// around it meanwhile. Of two that are made at once the later one sees the other.
func confirmPlace(ctx context.Context, ref *diskRef) error {
	if err := standsAlone(ctx, ref); err != nil {
		return unmake(ctx, ref, err)
	}
	return nil
}

// standsAlone refuses a disk in a store that is inside another disk of the store, or has anything
// below it but its head.
func standsAlone(ctx context.Context, ref *diskRef) error {
	var around []string
	for at := path.Dir(ref.Path); at != "."; at = path.Dir(at) {
		around = append(around, at)
	}
	at, err := firstDisk(ctx, ref.Store, around)
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "look for disks around %s", ref.URL)
	}
	if at != "" {
		outer, err := blobs.JoinDiskURL(ref.Pool, at)
		if err != nil {
			return err
		}
		return insideAnother(ref.URL, outer)
	}
	below := ""
	if err := ref.Store.List(ctx, ref.Path+"/", "", func(e blob.Entry) bool {
		if e.Key != ref.Path+"/head" {
			below = e.Key
		}
		return below == ""
	}); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "look at what is at %s", ref.URL)
	}
	if below == "" {
		return nil
	}
	return whatIsBelow(ctx, ref, below)
}

// whatIsBelow refuses a place for what is below it, of which key is the first.
func whatIsBelow(ctx context.Context, ref *diskRef, key string) error {
	var within []string
	for at := path.Dir(key); len(at) > len(ref.Path); at = path.Dir(at) {
		within = append(within, at)
	}
	at, err := firstDisk(ctx, ref.Store, within)
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "look for disks below %s", ref.URL)
	}
	if at == "" {
		return errs.New(errs.Exists,
			"there was a disk at %s, and forks may need what is left of it, such as %s",
			ref.URL, key).
			WithRemedy("choose another URL")
	}
	inner, err := blobs.JoinDiskURL(ref.Pool, at)
	if err != nil {
		return err
	}
	return errs.New(errs.Conflict,
		"disk %s would lie around disk %s: a destroy or a check of it would take that one for its own", ref.URL, inner).
		WithRemedy("choose a URL that no disk's URL begins with")
}

func insideAnother(inner, outer string) error {
	return errs.New(errs.Conflict,
		"disk %s would lie inside disk %s: a destroy or a check of that one would take it for its own", inner, outer).
		WithRemedy("choose a URL beside it, such as %s", besideURL(inner, outer))
}

// besideURL makes of …/app and …/app/x/log the URL …/app-x-log.
func besideURL(inner, outer string) string {
	o, oerr := url.Parse(outer)
	i, ierr := url.Parse(inner)
	if oerr != nil || ierr != nil {
		return outer + "-2"
	}
	rest := strings.Trim(strings.TrimPrefix(i.Path, o.Path), "/")
	o.Path += "-" + strings.ReplaceAll(rest, "/", "-")
	return o.String()
}

// firstDisk returns the first of some places in a store that has a disk, or "".
func firstDisk(ctx context.Context, store blob.Store, places []string) (string, error) {
	there := make([]bool, len(places))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(headLooks)
	for i, at := range places {
		g.Go(func() error {
			_, err := disk.ReadHead(gctx, store, at)
			there[i] = err == nil
			// nothing, or something else of that name
			if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Corrupt) ||
				errs.Is(err, errs.Invalid) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	for i, at := range places {
		if there[i] {
			return at, nil
		}
	}
	return "", nil
}

// mustBeOutside refuses a disk whose store itself lies inside a disk of another store. It opens no
// store in a directory, which would make something there. Where nothing may be read it takes
// nothing to be there.
func mustBeOutside(ctx context.Context, diskURL string) error {
	bare, _, err := blobs.SplitLogURL(diskURL)
	if err != nil {
		return err
	}
	pool, _, err := blobs.SplitDiskURL(bare)
	if err != nil {
		return err
	}
	above, err := blobs.Above(pool)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(headLooks)
	for _, outer := range above {
		g.Go(func() error {
			there, err := isDisk(gctx, outer)
			if there {
				err = insideAnother(bare, outer)
			}
			return err
		})
	}
	return g.Wait()
}

// isDisk reports whether there is a disk at a URL that was not meant to be one.
func isDisk(ctx context.Context, at string) (bool, error) {
	u, err := url.Parse(at)
	if err != nil {
		return false, errs.Wrap(errs.Invalid, err, "look at %s", at)
	}
	if u.Scheme == "file" {
		return isDiskDir(u.Path), nil
	}
	bucket := *u
	bucket.Path, bucket.RawPath = "", ""
	store, err := blobs.Open(ctx, bucket.String())
	if err != nil {
		return false, err
	}
	place := strings.Trim(u.Path, "/")
	found, err := firstDisk(ctx, store, []string{place})
	if errs.Is(err, errs.Denied) {
		err = nil // credentials for one prefix
	}
	return found != "", errors.Join(err, store.Close())
}

// isDiskDir reports whether a directory is a disk's.
func isDiskDir(dir string) bool {
	name := dir + "/head"
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxHead {
		return false
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	_, err = format.DecodeHead(b)
	return err == nil
}
