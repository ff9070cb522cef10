// Package journal is the local ring that lets a disk of mode bounded acknowledge flushes before the
// object store has the writes. It knows no store: a region of a file or block device with two
// header pages and a ring of records in write order.
//
// # Invariants
//
//   - A record is believed only if its checksum holds, it carries the session that the header
//     names, and its number is the one after the record before it. A torn tail, and what an earlier
//     lap or session left, end the reading.
//   - What a Sync has covered is never rewritten, nor is its page: records after it begin on the
//     next page.
//   - Space is used again only after a header that no longer needs it is on the device.
//   - A header is written to the older of its two pages, so that a torn one leaves the other.
//   - No I/O happens under the lock.
//
// # When a journal is believed, and why no crash of a recovery loses it
//
// A header names the disk, and the source: the epoch and session whose writes the ring holds. The
// journal is believed only if the head, as found before an attach claims it, is open and names that
// source. Then no other session has been the writer since, and the records are what the store
// lacks.
//
// Recovering changes the head to a session of its own, and may die at any point after that.
// Therefore, before the head is claimed, the header is rewritten with two claims beside the source:
// the head's session as it was found, and the one about to claim it. A head that names a claim is
// believed like one that names the source:
//
//   - died before the claim reached the head: the head still names what it did, which the header
//     has;
//   - died after it: the head names the new claim. It got there by a swap of exactly the head that
//     was believed, so no foreign session lies between. Another one's swap in its place leaves a
//     session that no header has;
//   - died while records were being written to the store: every batch of the source is written
//     again as one log object of the recovering epoch, in order, and no map is written meanwhile.
//     So the number of log objects in the epochs after the source's says how many batches have been
//     written again, and the next recovery goes on after them: the store is a prefix of the write
//     order at every moment, also if the journal is lost between;
//   - died after the last one was written: there is nothing left to write again. Only after that
//     does the header name the new session as the source of an empty ring, and only after that does
//     the attach return, so that no session that recovers has writes of its own which the source's
//     records could overwrite.
//
// A clean attach, or one that doesn't believe the journal, empties it for its own session. If it
// dies before, the header names a session that is no longer the head's.
package journal
