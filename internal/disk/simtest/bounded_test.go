package simtest

import (
	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
)

// host has a journal for a disk of mode bounded. One session at a time uses it.
type host struct {
	content []byte   // of the journal's device, while nobody uses it
	user    *session // nil: nobody, or who is attaching
	file    *journaltest.File
	death   *journaltest.Death
}

func newHost() *host { return &host{content: make([]byte, journal.MinSize)} }

// chooseHost returns where a disk is attached next: mostly where it was, sometimes elsewhere, and
// sometimes, as always for a durable one, without a journal. A zombie that has the journal there is
// ended: two processes can't have it open.
func (w *world) chooseHost(v *vdisk) *host {
	if len(v.hosts) == 0 {
		return nil
	}
	h := v.hosts[w.rng.IntN(len(v.hosts))]
	switch k := w.rng.IntN(16); {
	case v.home != nil && (k < 10 || w.quiet):
		h = v.home
	case k == 15:
		return nil
	}
	if v.cur != nil && v.cur.host == h { // it lives on, and is taken over from elsewhere
		if h = v.hosts[0]; v.cur.host == h {
			h = v.hosts[1]
		}
	}
	if s := h.user; s != nil {
		w.log("the zombie of generation %d on that host ends", s.d.Head().Generation)
		w.end(s)
	}
	return h
}

// dying returns of how many attaches one ends in the death of its host.
func (w *world) dying() int {
	if w.p.bug == forgetClaim {
		return 2
	}
	return 12
}

// where names a host for the log.
func (w *world) where(v *vdisk, h *host) string {
	for i := range v.hosts {
		if v.hosts[i] == h {
			return map[bool]string{true: " at home",
				false: ""}[h == v.home] + " on host " + string(rune('A'+i))
		}
	}
	return ""
}

// mount opens a host's journal as it was left; nil for no host.
func (w *world) mount(v *vdisk, h *host) *journal.Journal {
	if h == nil {
		return nil
	}
	h.death = &journaltest.Death{}
	h.file = journaltest.New(h.content, h.death)
	j, err := journal.New(w.broken(h.file), journal.Options{Size: journal.MinSize})
	if err != nil {
		w.violate("open the journal of %s: %v", v.path, err)
		return nil
	}
	if w.p.bug == trustStale {
		w.forgeClaim(v, j)
	}
	return j
}

// unmount leaves a host's journal to the next session, as it is after a crash of the host or a loss
// of its power; now and then it is damaged or gone.
func (w *world) unmount(v *vdisk, h *host) {
	if h == nil || h.file == nil {
		return
	}
	h.content = h.file.Crash(w.rng)
	h.file, h.user = nil, nil
	switch w.rng.IntN(10) {
	case 0:
		h.content = make([]byte, journal.MinSize)
	case 1:
		h.content[w.rng.IntN(len(h.content))] ^= 1 << w.rng.IntN(8)
	case 2: // where it hurts most
		h.content[w.rng.IntN(2)*blockSize+w.rng.IntN(176)] ^= 1 << w.rng.IntN(8)
	default:
		return
	}
	if h == v.home {
		v.intact = false
	}
}

// broken returns the journal's device, with the bug of this run.
func (w *world) broken(f *journaltest.File) journal.File {
	switch w.p.bug {
	case ackUnsynced:
		return lazyFile{f}
	case forgetClaim:
		return forgetfulFile{f}
	}
	return f
}

// lazyFile acknowledges what it hasn't synced.
type lazyFile struct{ *journaltest.File }

func (f lazyFile) Sync() error { return nil }

// forgetfulFile loses headers that have a claim.
type forgetfulFile struct{ *journaltest.File }

func (f forgetfulFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 2*blockSize {
		for _, b := range p[72:120] {
			if b != 0 {
				return len(p), nil
			}
		}
	}
	return f.File.WriteAt(p, off)
}

// forgeClaim makes the journal name the session that the head names, as if no head could make it
// stale.
func (w *world) forgeClaim(v *vdisk, j *journal.Journal) {
	o, err := w.p.Get(w.ctx, v.path+"/head", blob.All())
	if err != nil {
		return
	}
	head, err := format.DecodeHead(o.Data)
	if err != nil || head.State != format.StateOpen {
		return
	}
	if id, err := ulid.ParseStrict(head.Session); err == nil {
		_ = j.Claim(j.Source(), journal.Session{Epoch: head.Epoch, ID: format.ID(id)})
	}
}
