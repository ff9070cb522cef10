// Package patience tells slow from dead. It counts the time in which something came no further, and
// counts less of it while its host had little to give. It reads no clock and no file.
package patience

import "time"

const (
	// mostShare bounds how far pressure stretches a deadline: to ten times.
	mostShare = 0.9
	// idleShare is what an idle host shows, too: it stretches nothing.
	idleShare = 0.2
	// mostGap is the most that counts between two looks. Nobody saw what happened in a longer one,
	// most often because the looker had no time itself.
	mostGap = 2 * time.Second
)

// UnderPressure is the share of the time from which a host counts as under pressure: what is done
// there takes at least twice as long.
const UnderPressure = 0.5

// ioWeight is how much waiting for I/O slows what is done: a single writer makes something wait all
// of the time, on a host that is fine.
const ioWeight = 0.5

// Share returns how much of the time work waits, as one number, of how much it waits for each
// resource.
func Share(cpu, memory, io float64) float64 { return min(max(cpu, memory, ioWeight*io, 0), 1) }

// Rate returns how much of a second counts, between 0.1 and 1, on a host where work waits for that
// share of the time.
func Rate(share float64) float64 {
	if share <= idleShare {
		return 1
	}
	return 1 - min(share, mostShare)
}

// Stretch returns a deadline's length on such a host, at most that many times as long.
func Stretch(d time.Duration, share, most float64) time.Duration {
	return time.Duration(float64(d) * min(1/Rate(share), most))
}

// Watch counts for how long something has come no further. The zero Watch begins at its first look.
// Not safe for concurrent use.
type Watch struct {
	mark  string
	at    time.Time
	spent time.Duration
}

// Look takes in how far it is, as a mark that differs from the last one if it has come further, and
// returns the time without progress that counts. share is how much of the time work waits on its
// host.
func (w *Watch) Look(now time.Time, mark string, share float64) time.Duration {
	if w.at.IsZero() || mark != w.mark {
		*w = Watch{mark: mark, at: now}
		return 0
	}
	gap := min(max(now.Sub(w.at), 0), mostGap)
	w.spent += time.Duration(float64(gap) * Rate(share))
	w.at = now
	return w.spent
}

// Skip has the time up to now count for nothing, for example because nothing could be heard.
func (w *Watch) Skip(now time.Time) {
	if !w.at.IsZero() {
		w.at = now
	}
}
