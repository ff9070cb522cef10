package disk

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// DestroyOptions is for disks with a log store.
type DestroyOptions struct {
	OpenLog OpenStore // nil: such a disk is refused as Unsupported
	Pool    string    // URL of the store that the disk is in; see ElsewhereLog
}

// Destroy removes a disk for good. A missing one is no error, so that it can be repeated after a
// crash. The owner sees to it that nobody has it attached: a writer that is left over is fenced by
// the missing head. Disks whose paths lie below this one's are left alone.
//
// A log store is emptied first, while the head says where it is. Nobody can attach the disk from
// then on. A log store that can't be reached is an error, and so is one of a disk in another pool.
//
// Then go the head and the checkpoints, so that nobody attaches or forks the disk any more. A fork
// that was under way has registered itself by then, or will miss its checkpoint and fail; a reader
// has its pin, or fails. What a registered fork or a reader may refer to stays, and is the
// collector's.
//
// That needs listings which show all that was stored before, as blob.Store promises. A collector's
// grace covers old ones, and nothing does here. So it also lists before it removes anything. A
// listing that lacks the head that is there is Unavailable, and what either shows counts.
func Destroy(ctx context.Context, store blob.Store, path string, opts DestroyOptions) error {
	if err := checkPath(path); err != nil {
		return err
	}
	client := oneShot(store)
	h, _, err := client.LoadHead(ctx, path)
	if errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Denied) {
		return err // what can't be decoded can be destroyed
	}
	before, lerr := listDisk(ctx, client, path, h, !errs.Is(err, errs.NotFound))
	if lerr != nil {
		return errs.Wrap(errs.KindOf(lerr), lerr, "destroy disk %s: nothing was removed", path)
	}
	if err == nil && h.LogStore != nil {
		if err := destroyLog(ctx, h, path, opts); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "destroy the log of disk %s", path)
		}
	}
	if err := client.Remove(ctx, headKey(path)); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "destroy disk %s", path)
	}
	names, err := client.Names(ctx, format.KeyCheckpoint.Folder(path))
	for _, name := range union(names, below(before, format.KeyCheckpoint.RelFolder())) {
		if _, ok := format.ParseKey(format.KeyCheckpoint.RelFolder() + name); ok && err == nil {
			err = client.Remove(ctx, checkpointKey(path, name))
		}
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "destroy the checkpoints of disk %s", path)
	}
	if used, err := isNeeded(ctx, client, path, before); err != nil || used {
		return err
	}
	return removeRest(ctx, client, path, before)
}

// listDisk lists a disk's objects, by their names below its path. If the disk is there and the
// listing lacks its head, or its newest map, it is Unavailable: such a listing says nothing. h is
// nil if the head can't be decoded.
func listDisk(
	ctx context.Context, client *store.Client, path string, h *format.Head, there bool,
) ([]string, error) {
	names, err := client.Names(ctx, path+"/")
	if err != nil || !there {
		return names, err
	}
	must := []string{headKey(path)}
	if h != nil && h.Root != nil && h.Root.Lineage == 0 {
		must = append(must, rootKey(path, h.Root.Epoch, h.Root.N))
	}
	for _, key := range must {
		if slices.Contains(names, strings.TrimPrefix(key, path+"/")) {
			continue
		}
		if there, err := client.Exists(ctx, key); there || err != nil {
			return nil, unlisted(key, err)
		}
	}
	return names, nil
}

// unlisted returns the error of a listing that lacks an object; err is that of reading the object.
func unlisted(key string, err error) error {
	if err != nil {
		return err
	}
	return errs.New(errs.Unavailable,
		"the store has %s and doesn't list it: its listings can't be believed", key).
		WithRemedy("try again later; if it stays so, find out what is wrong with the store, or " +
			"with what is before it")
}

// isNeeded reports whether a destroyed disk has forks or readers. It reads those that were listed
// before and aren't now.
func isNeeded(
	ctx context.Context, client *store.Client, path string, before []string,
) (bool, error) {
	for _, users := range []format.KeyKind{format.KeyRef, format.KeyPin} {
		left, err := client.Names(ctx, users.Folder(path))
		if err != nil || len(left) > 0 {
			return len(left) > 0, err
		}
		for _, name := range below(before, users.RelFolder()) {
			if there, err := client.Exists(ctx, users.Folder(path)+name); there || err != nil {
				return true, err
			}
		}
	}
	return false, nil
}

// removeRest removes all that is left of a destroyed disk that nobody uses, and checks that it is
// gone. before has the names that were listed at the beginning.
func removeRest(ctx context.Context, client *store.Client, path string, before []string) error {
	for try := 0; ; try++ {
		rest, err := client.Names(ctx, path+"/")
		if err != nil {
			return errs.Wrap(errs.KindOf(err), err, "list what is left of disk %s", path)
		}
		rest = slices.DeleteFunc(union(rest, before), func(name string) bool {
			// Others' objects, and what came since: it is of a fork or a reader that fails.
			k, ok := format.ParseKey(name)
			return !ok || k.Kind == format.KeyRef || k.Kind == format.KeyPin
		})
		if len(rest) == 0 {
			return nil
		}
		if try == removals {
			return errs.New(errs.Unavailable,
				"disk %s is destroyed, and %d objects of it are still listed, such as %s",
				path, len(rest), rest[0]).
				WithRemedy("destroy it once more; if it stays so, a collection frees them: " +
					"sluice disk collect")
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, name := range rest {
			g.Go(func() error { return client.Remove(gctx, path+"/"+name) })
		}
		if err := g.Wait(); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "remove what is left of disk %s", path)
		}
		before = nil
	}
}

// removals is how often removeRest removes what it finds. Writers that don't know of the Destroy
// yet may write more.
const removals = 4

// below returns the names that begin with a prefix, without it.
func below(names []string, prefix string) (out []string) {
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out = append(out, rest)
		}
	}
	return out
}

// union returns the names of both, each once.
func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// mayDestroyLog returns nil if a log is this disk's, and no copy's. One without identity is being
// destroyed already.
func mayDestroyLog(
	ctx context.Context, client *store.Client, h *format.Head, pool, path string,
) error {
	obj, err := client.Get(ctx, identityKey(h.UID), blob.All())
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return ofLogStore(h.LogStore.URL, err)
	}
	id, err := format.DecodeLogIdentity(obj.Data)
	if errs.Is(err, errs.Corrupt) {
		return nil // what can't be decoded can be destroyed
	}
	if err == nil {
		err = ElsewhereLog(id, h.LogStore.URL, pool, path)
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "it stays").
			WithRemedy("leave it alone: --lost-log; what it then has for nobody is below %s/ there",
				h.UID)
	}
	return nil
}

// destroyLog removes what a disk has in its log store. The identity goes first, so that an attach
// that has read a part of the log doesn't take the rest for never written (sameLog). It can be
// repeated as long as the head is there.
func destroyLog(ctx context.Context, h *format.Head, path string, opts DestroyOptions) error {
	store, err := openLogStore(ctx, h, opts.OpenLog)
	if err != nil {
		return err
	}
	defer store.Close()
	client := oneShot(store)
	if err := mayDestroyLog(ctx, client, h, opts.Pool, path); err != nil {
		return err
	}
	if err := client.Remove(ctx, identityKey(h.UID)); err != nil {
		return ofLogStore(h.LogStore.URL, err)
	}
	names, err := client.Names(ctx, format.KeyRunLog.Folder(h.UID))
	for _, name := range names {
		if err == nil {
			err = client.Remove(ctx, format.KeyRunLog.Folder(h.UID)+name)
		}
	}
	if err == nil {
		err = client.Remove(ctx, onceKey(h.UID))
	}
	if err != nil {
		return ofLogStore(h.LogStore.URL, err)
	}
	return nil
}
