package etcdstate_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// writerDir, set in the environment, makes the test binary a writer that is to be killed.
const writerDir = "SLUICE_TEST_WRITER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// write counts key n up until it is killed, and prints each number once it is acknowledged. Should
// nobody kill it, it ends by itself.
func write(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e, err := etcdstate.Start(ctx, etcdstate.Config{Dir: dir})
	if err != nil {
		return err
	}
	n, rev, err := counter(ctx, e.Store())
	if err != nil {
		return err
	}
	for {
		n++
		rev, err = e.Store().Commit(ctx, state.Txn{
			If:   []state.Cond{{Key: "n", ModRevision: rev}},
			Then: []state.Op{{Key: "n", Value: []byte(strconv.Itoa(n))}},
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func counter(ctx context.Context, s state.Store) (n int, rev int64, err error) {
	kv, err := s.Get(ctx, "n")
	if errs.Is(err, errs.NotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	n, err = strconv.Atoi(string(kv.Value))
	return n, kv.ModRevision, err
}

// TestKilledMemberKeepsWhatItAcknowledged kills a member with SIGKILL at random moments, its first
// start included, and wants the counter at the last acknowledged number, or one further.
func TestKilledMemberKeepsWhatItAcknowledged(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, acked := t.TempDir(), 0
	for round := range 12 {
		life := time.Duration(rng.IntN(400)) * time.Millisecond
		if round == 11 && acked == 0 {
			life = 5 * time.Second // a machine so busy that none came that far
		}
		acked = max(acked, runAndKill(t, dir, life))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		e, err := etcdstate.Start(ctx, etcdstate.Config{Dir: dir})
		cancel()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		n, _, err := counter(t.Context(), e.Store())
		if err != nil || n < acked || n > acked+1 {
			t.Fatalf("round %d: counter %d, %v; acknowledged %d", round, n, err, acked)
		}
		acked = n
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked == 0 {
		t.Fatal("no round lived long enough to acknowledge anything")
	}
}

// runAndKill returns the last number that the writer printed.
func runAndKill(t *testing.T, dir string, life time.Duration) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), life) // its end is a SIGKILL
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); ctx.Err() == nil {
		t.Fatalf("the writer ended by itself: %v: %s", err, complaint.String())
	}
	last := 0
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // a line cut short by the kill
		}
		last = n
	}
	return last
}

// TestFirstStartKilledAtEveryMoment kills members in their very first start, each a little later
// than the one before. What is left must start.
func TestFirstStartKilledAtEveryMoment(t *testing.T) {
	for life := 10 * time.Millisecond; life < 250*time.Millisecond; life += 24 * time.Millisecond {
		dir := t.TempDir()
		acked := runAndKill(t, dir, life)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		e, err := etcdstate.Start(ctx, etcdstate.Config{Dir: dir})
		cancel()
		if err != nil {
			t.Fatalf("killed after %s: %v", life, err)
		}
		n, _, err := counter(t.Context(), e.Store())
		if err != nil || n < acked || n > acked+1 {
			t.Errorf("killed after %s: counter %d, %v; acknowledged %d", life, n, err, acked)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
