package disk

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A disk's boot trace is its own where it has one, else that of the checkpoint it was forked from.
// A fork can't write to its parent. So whoever makes the next fork takes the trace of an earlier
// one, and keeps it beside the checkpoint, once for all forks to come.

const (
	traceSiblings = 16              // forks looked at for a trace, of
	traceListed   = 1000            // forks listed
	traceAdopt    = 2 * time.Second // for finding one
)

// traceOf returns the key of the trace of what a boot of the disk reads first, and false if there
// is none.
func traceOf(h *format.Head) (string, bool) {
	switch {
	case h.Boot != 0:
		return traceKey(h.Lineage[0].Path, h.Boot), true
	case h.Parent != nil:
		return checkpointTraceKey(h.Parent.Path, h.Parent.Checkpoint), true
	}
	return "", false
}

// AdoptTrace gives a checkpoint of the disk at path a boot trace, if it has none yet. It takes that
// of one of its forks, or else of its own disk. Forks that have never run read it ahead when they
// are attached. It costs one request where there is a trace. Where it must look for one it makes a
// few more, for at most 2 s. Call it beside Fork. Without a trace, first boots are slower and
// nothing else: no failure here is an error.
func AdoptTrace(ctx context.Context, store blob.Store, path, checkpoint string) {
	if checkPath(path) != nil || CheckName(checkpoint) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, traceAdopt)
	defer cancel()
	client, key := oneShot(store), checkpointTraceKey(path, checkpoint)
	if there, err := client.Exists(ctx, key); there || err != nil {
		return
	}
	c, err := loadCheckpoint(ctx, client, path, checkpoint)
	if err != nil {
		return
	}
	for _, h := range headsOf(ctx, client, append(someForks(ctx, client, path), path)) {
		fork := h.Parent != nil && h.Parent.UID == c.UID && h.Parent.Checkpoint == c.Name
		if h.Boot != 0 && (fork || h.UID == c.UID) &&
			copyTrace(ctx, client, traceKey(h.Lineage[0].Path, h.Boot), key) {
			return
		}
	}
}

// headsOf returns the heads of those disks that have one that can be read, in order.
func headsOf(ctx context.Context, client *store.Client, paths []string) []*format.Head {
	heads := make([]*format.Head, len(paths))
	var g errgroup.Group
	for i, p := range paths {
		g.Go(func() error {
			heads[i], _, _ = client.LoadHead(ctx, p)
			return nil
		})
	}
	_ = g.Wait() // no error can come
	return slices.DeleteFunc(heads, func(h *format.Head) bool { return h == nil })
}

// someForks returns the paths of a few forks of a disk, by chance which.
func someForks(ctx context.Context, client *store.Client, path string) []string {
	var children []string
	folder := format.KeyRef.Folder(path)
	err := client.TryList(ctx, folder, func(e blob.Entry) bool {
		if child, ok := format.ChildOf(strings.TrimPrefix(e.Key, folder)); ok {
			children = append(children, child)
		}
		return len(children) < traceListed
	})
	if err != nil {
		return nil
	}
	rand.Shuffle(len(children), func(i, j int) {
		children[i], children[j] = children[j], children[i]
	})
	return children[:min(len(children), traceSiblings)]
}

// copyTrace copies a boot trace that can be read, and reports whether there is one now.
func copyTrace(ctx context.Context, client *store.Client, from, to string) bool {
	obj, err := client.Get(ctx, from, blob.All())
	if err != nil {
		return false
	}
	if _, err := format.DecodeTrace(obj.Data); err != nil {
		return false
	}
	err = client.PutNew(ctx, to, obj.Data)
	return err == nil || errs.Is(err, errs.Conflict) // another fork was faster
}
