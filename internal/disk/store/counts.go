package store

import "sync/atomic"

// Counts is what a client, and the log store's beside it, have asked for. Bytes are of object
// bodies.
type Counts struct {
	Gets      uint64
	GetBytes  uint64
	Puts      uint64 // attempts to write a write-once object
	PutBytes  uint64
	Swaps     uint64 // attempts to replace one version by another
	Lists     uint64
	Retries   uint64 // attempts that the store did not answer
	Throttled uint64 // of them, those that it answered by asking for fewer requests
	Hedges    uint64 // reads asked twice because the store was late; counted in gets too
	HedgeWins uint64 // of them, answered by the second request first
	Lost      uint64 // objects that the store acknowledged and did not have, written again
}

type counters struct {
	gets, getBytes, puts, putBytes, swaps, lists atomic.Uint64
	retries, throttled, hedges, hedgeWins, lost  atomic.Uint64
}

// Counts returns what was asked for since the client was made.
func (c *Client) Counts() Counts {
	n := c.counters
	return Counts{
		Gets: n.gets.Load(), GetBytes: n.getBytes.Load(),
		Puts: n.puts.Load(), PutBytes: n.putBytes.Load(),
		Swaps: n.swaps.Load(), Lists: n.lists.Load(),
		Retries: n.retries.Load(), Throttled: n.throttled.Load(),
		Hedges: n.hedges.Load(), HedgeWins: n.hedgeWins.Load(), Lost: n.lost.Load(),
	}
}
