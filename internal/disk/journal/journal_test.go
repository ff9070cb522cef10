package journal

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var (
	testDisk    = format.ID{1}
	testSession = Session{Epoch: 7, ID: format.ID{2}}
)

func mustOpen(t *testing.T, path string, o Options) *Journal {
	t.Helper()
	j, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// begin makes the journal testDisk's and runs it until end is called, which also closes the file.
func begin(t *testing.T, j *Journal) (end func()) {
	t.Helper()
	if err := j.Begin(testDisk, testSession); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); j.Run(ctx) }()
	return func() {
		cancel()
		<-done
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

func content(n uint64) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, format.BlockSize/2)
}

// add appends data record n, waiting for room.
func add(t *testing.T, j *Journal, n uint64) {
	t.Helper()
	for {
		ok, changed := j.Room(format.BlockSize)
		if ok {
			break
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatal("no room within 10 s")
		}
	}
	j.Append(Record{Seq: n, Kind: Data, Block: n, Count: 1, Blocks: content(n)})
}

// replayed returns the sequence numbers of what is replayed, and checks the content of each record.
func replayed(t *testing.T, j *Journal) (seqs []uint64) {
	t.Helper()
	if err := j.Replay(func(r *Record) error {
		seqs = append(seqs, r.Seq)
		if r.Kind == Data && !bytes.Equal(r.Blocks, content(r.Seq)) || r.Block != r.Seq ||
			r.Count != 1 {
			t.Errorf("record %d is %d blocks at %d, or has other content", r.Seq, r.Count, r.Block)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return seqs
}

func wantSeqs(t *testing.T, got []uint64, from, to uint64) {
	t.Helper()
	var want []uint64
	for n := from; n <= to; n++ {
		want = append(want, n)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("replayed %v, want %d to %d", got, from, to)
	}
}

func TestOpenReservesAndLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustOpen(t, path, Options{Size: MinSize})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != MinSize || st.Blocks*512 < MinSize ||
		st.Mode&0o077 != 0 {
		t.Errorf("size %d, %d bytes reserved, mode %o: %v", st.Size, st.Blocks*512, st.Mode, err)
	}
	if b, err := os.ReadFile(path); err != nil || len(bytes.Trim(b, "\x00")) != 0 {
		t.Errorf("a new journal is not zeros: %v", err)
	}
	if _, err := Open(path, Options{Size: MinSize}); !errs.Is(err, errs.Conflict) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, path, Options{Size: MinSize}).Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Size: MinSize - 1}, {Size: MinSize, Offset: 1},
		{Size: MinSize, Offset: -4096}} {
		if _, err := Open(filepath.Join(t.TempDir(), "x"), o); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Open(t.TempDir(), Options{Size: MinSize}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a directory: %v", err)
	}
}

// TestOpenDevice: a block device that somebody else has to himself is refused, and one that is too
// small too.
func TestOpenDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	path := filepath.Join(t.TempDir(), "backing")
	if err := os.WriteFile(path, make([]byte, MinSize), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", path).Output()
	if err != nil {
		t.Fatalf("no loop device: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "losetup",
			"--detach", dev).Run()
	})
	user, err := os.OpenFile(dev, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dev, Options{Size: MinSize}); !errs.Is(err, errs.Conflict) {
		t.Errorf("a device in use: %v", err)
	}
	if err := user.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dev, Options{Size: 2 * MinSize}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a device that is too small: %v", err)
	}
	j := mustOpen(t, dev, Options{Size: MinSize})
	end := begin(t, j)
	add(t, j, 1)
	if err := j.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	end()
	j = mustOpen(t, dev, Options{Size: MinSize})
	wantSeqs(t, replayed(t, j), 1, 1)
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestReplayAfterReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustOpen(t, path, Options{Size: MinSize})
	end := begin(t, j)
	for n := uint64(1); n <= 5; n++ {
		add(t, j, n)
		if n%2 == 1 { // some have a page of their own, some don't
			if err := j.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	end()
	j = mustOpen(t, path, Options{Size: MinSize})
	defer j.Close()
	if !j.Matches(testDisk, testSession) || j.Source() != testSession {
		t.Error("the journal is not its session's")
	}
	for _, s := range []Session{{}, {Epoch: 8, ID: testSession.ID}, {Epoch: 7, ID: format.ID{3}}} {
		if j.Matches(testDisk, s) {
			t.Errorf("the journal is believed by session %v", s)
		}
		if err := j.Claim(s, testSession); !errs.Is(err, errs.Internal) {
			t.Errorf("claimed for session %v: %v", s, err)
		}
	}
	if j.Matches(format.ID{9}, testSession) {
		t.Error("another disk believes the journal")
	}
	wantSeqs(t, replayed(t, j), 1, 5)
	next := Session{Epoch: 8, ID: format.ID{8}}
	if err := j.Claim(testSession, next); err != nil || !j.Matches(testDisk, next) ||
		!j.Matches(testDisk, testSession) {
		t.Errorf("after the claim: %v", err)
	}
	wantSeqs(t, replayed(t, j), 1, 5)
	if err := j.Begin(testDisk, next); err != nil || j.Matches(testDisk, testSession) {
		t.Errorf("begun by another session: %v", err)
	}
	wantSeqs(t, replayed(t, j), 1, 0)
}

// TestTornTail flips each byte of the last record in turn: all before it are replayed, and nothing
// of it.
func TestTornTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustOpen(t, path, Options{Size: MinSize})
	end := begin(t, j)
	var last Mark
	for n := uint64(1); n <= 3; n++ {
		last = j.Mark()
		add(t, j, n)
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	end()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := headerPages*pageSize + int(last.Pos)
	for off := 0; off < recordHeader+format.BlockSize; off += 1 + off/recordHeader*61 {
		torn := bytes.Clone(whole)
		torn[at+off] ^= 0x40
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		j := mustOpen(t, path, Options{Size: MinSize})
		wantSeqs(t, replayed(t, j), 1, 2)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLaps fills the ring several times over. What is not released is replayed, over the ring's end
// too, and nothing of earlier laps.
func TestLaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustOpen(t, path, Options{Size: MinSize})
	end := begin(t, j)
	const n, kept = 100, 5
	var marks []Mark
	for i := uint64(1); i <= n; i++ {
		marks = append(marks, j.Mark())
		if i > kept {
			j.Release(marks[i-kept])
		}
		add(t, j, i)
	}
	if j.Mark().Pos < 4*j.ring {
		t.Fatalf("only %d bytes of a ring of %d", j.Mark().Pos, j.ring)
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	end()
	j = mustOpen(t, path, Options{Size: MinSize})
	defer j.Close()
	got := replayed(t, j)
	if len(got) < kept || got[0] > n-kept+1 {
		t.Fatalf("replayed %v, which lacks records that may be needed", got)
	}
	wantSeqs(t, got, got[0], n)
}

func TestFullRingHasNoRoom(t *testing.T) {
	j := mustOpen(t, filepath.Join(t.TempDir(), "j"), Options{Size: MinSize})
	defer begin(t, j)()
	n := uint64(0)
	for ok := true; ok; ok, _ = j.Room(format.BlockSize) {
		n++
		j.Append(Record{Seq: n, Kind: Data, Block: n, Count: 1, Blocks: content(n)})
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, replayed(t, j), 1, n)
	ok, changed := j.Room(format.BlockSize)
	if ok {
		t.Fatal("a full ring has room")
	}
	j.Release(j.Mark())
	for !ok {
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatal("no room 10 s after all was released")
		}
		ok, changed = j.Room(format.BlockSize)
	}
}

// TestOtherSizeOrDisk: who would lose another's writes is refused, unless they are of no use to
// anybody.
func TestOtherSizeOrDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := mustOpen(t, path, Options{Size: MinSize})
	begin(t, j)()
	if _, err := Open(path, Options{Size: 2 * MinSize}); !errs.Is(err, errs.Conflict) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("another size: %v", err)
	}
	other := format.ID{9}
	j = mustOpen(t, path, Options{Size: MinSize})
	if err := j.MayBegin(other); !errs.Is(err, errs.Conflict) {
		t.Errorf("another disk: %v", err)
	}
	if err := j.Clear(other); err != nil || !j.Matches(testDisk, testSession) {
		t.Errorf("cleared by another disk: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, path, Options{Size: MinSize, Foreign: true})
	if err := j.MayBegin(other); err != nil {
		t.Errorf("of no use to anybody: %v", err)
	}
	if err := j.Clear(testDisk); err != nil || j.Matches(testDisk, testSession) {
		t.Errorf("cleared: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, path, Options{Size: 2 * MinSize})
	if err := j.Begin(other, testSession); err != nil {
		t.Errorf("cleared, then of another size: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, path, Options{Size: 2 * MinSize})
	if !j.Matches(other, testSession) {
		t.Error("the header of the new size is not the newest")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
