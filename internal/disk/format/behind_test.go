package format

import "testing"

// TestALogObjectTellsWhatWasAcknowledged is of the number that a header has above its time, where
// an older reader doesn't look.
func TestALogObjectTellsWhatWasAcknowledged(t *testing.T) {
	for _, tc := range []struct{ seq, acked, want uint64 }{
		{1, 0, 0}, {9, 8, 8}, {9, 5, 5}, {9, 0, 0}, {9, 9, 0},
		{70_000, 70_000 - 65_535, 70_000 - 65_535}, {70_000, 1, 0},
	} {
		h := LogHeader{Kind: KindLog, Disk: id(1), Nonce: id(2), Epoch: 3, Seq: tc.seq,
			Created: 1_700_000_000_000,
			Runs:    []Run{{LBA: 1, Count: 1, Kind: RunZero}}}
		h.SetAcknowledged(tc.acked)
		b := make([]byte, h.Len())
		h.put(b)
		got, err := DecodeLogHeader(b)
		if err != nil || got.Acknowledged() != tc.want || got.Created != h.Created {
			t.Errorf("%+v: %d acknowledged, written at %d, %v", tc, got.Acknowledged(),
				got.Created, err)
		}
	}
	b := EncodeFence(id(1), id(2), 3, 9, 1_700_000_000_000)
	if h, err := DecodeLogHeader(b); err != nil || h.Acknowledged() != 0 {
		t.Errorf("a fence tells of %d, %v", h.Acknowledged(), err)
	}
}
