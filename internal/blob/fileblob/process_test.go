package fileblob_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The test binary plays the other processes too: role and store directory come by the environment.
const (
	roleEnv = "SLUICE_TEST_FILEBLOB_ROLE"
	rootEnv = "SLUICE_TEST_FILEBLOB_ROOT"
)

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "count":
		err = count(os.Getenv(rootEnv))
	case "write":
		err = write(os.Getenv(rootEnv))
	default:
		err = errors.New("unknown role " + role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func other(t *testing.T, role, root string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, rootEnv+"="+root)
	cmd.Stderr = os.Stderr
	return cmd
}

const increments = 40

// count adds to a shared number by compare-and-swap, and claims every value that it made as an
// object of its own: two processes that made the same value would collide there.
func count(root string) error {
	s, err := fileblob.Open(root)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for done := 0; done < increments; {
		o, err := s.Get(ctx, "counter", blob.All())
		if err != nil {
			return err
		}
		next := binary.BigEndian.Uint64(o.Data) + 1
		_, err = s.PutIfMatch(ctx, "counter", binary.BigEndian.AppendUint64(nil, next), o.ETag)
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err != nil {
			return err
		}
		done++
		if _, err := s.PutIfAbsent(ctx, fmt.Sprintf("claim/%08d", next),
			strconv.AppendInt(nil, int64(os.Getpid()), 10)); err != nil {
			return err
		}
	}
	return nil
}

func TestCompareAndSwapAcrossProcesses(t *testing.T) {
	root := t.TempDir() + "/store"
	s, err := fileblob.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "counter", make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	const processes = 4
	var cmds []*exec.Cmd
	for range processes {
		cmd := other(t, "count", root)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	o, err := s.Get(t.Context(), "counter", blob.All())
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.BigEndian.Uint64(o.Data); got != processes*increments {
		t.Fatalf("counter is %d after %d increments", got, processes*increments)
	}
}

// body is what write puts at step n: its size varies, and all of it follows from n.
func body(n int) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(n)), 1+n*37%5000)
}

// write puts objects in order by all three ways, says each on stdout when it is acknowledged, and
// never ends.
func write(root string) error {
	s, err := fileblob.Open(root)
	if err != nil {
		return err
	}
	ctx := context.Background()
	head, err := s.Get(ctx, "head", blob.All())
	if err != nil {
		return err
	}
	for n := int(binary.BigEndian.Uint64(head.Data)) + 1; ; n++ {
		// The last run may have been killed between the object and the head.
		if _, err := s.PutIfAbsent(ctx, fmt.Sprintf("log/%04d/%d", n/20, n), body(n)); err != nil &&
			!errs.Is(err, errs.Conflict) {
			return err
		}
		if _, err := s.Put(ctx, "plain", body(n)); err != nil {
			return err
		}
		if head.ETag, err = s.PutIfMatch(ctx, "head", body(n), head.ETag); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func TestKilledWriterLeavesWholeObjects(t *testing.T) {
	root := t.TempDir() + "/store"
	s, err := fileblob.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "head", body(0)); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for round := range 12 {
		cmd := other(t, "write", root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if acked, err = readAcks(lines, 3); err != nil {
			t.Fatal(err)
		}
		// so that the kill hits another step each time
		time.Sleep(time.Duration(round*337%2000) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, as we know
		if f := strings.Fields(string(rest)); len(f) > 0 {
			if acked, err = strconv.Atoi(f[len(f)-1]); err != nil {
				t.Fatal(err)
			}
		}
		checkWhole(t, s, acked)
	}
	if swept, err := s.Sweep(0); err != nil {
		t.Fatal(err)
	} else {
		t.Logf("%d objects acknowledged, %d temporary files swept after 12 kills", acked, swept)
	}
	if left, err := os.ReadDir(filepath.Join(root, ".sluice", "tmp")); err != nil || len(left) > 0 {
		t.Fatalf("temporary files after a sweep: %v %v", left, err)
	}
}

func readAcks(r *bufio.Reader, n int) (last int, err error) {
	for range n {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if last, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// checkWhole checks that every object is whole, and that everything up to acked is there.
func checkWhole(t *testing.T, s blob.Store, acked int) {
	t.Helper()
	found := 0
	err := s.List(t.Context(), "", "", func(e blob.Entry) bool {
		o, err := s.Get(t.Context(), e.Key, blob.All())
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Data) < 8 {
			t.Fatalf("object %s has %d bytes", e.Key, len(o.Data))
		}
		n := int(binary.BigEndian.Uint64(o.Data))
		if !bytes.Equal(o.Data, body(n)) || len(o.ETag) != 32 {
			t.Fatalf("object %s is not whole, or has the etag %q", e.Key, o.ETag)
		}
		switch {
		case strings.HasPrefix(e.Key, "log/"):
			found++
			if want := fmt.Sprintf("log/%04d/%d", n/20, n); e.Key != want {
				t.Fatalf("object %s holds the content of %s", e.Key, want)
			}
		case e.Key == "head" || e.Key == "plain":
			if n < acked {
				t.Fatalf("object %s is at %d after %d was acknowledged", e.Key, n, acked)
			}
		default:
			t.Fatalf("unexpected object %s", e.Key)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < acked {
		t.Fatalf("%d log objects, but %d were acknowledged", found, acked)
	}
}

func TestStaleTemporaryFilesAreInvisibleAndSwept(t *testing.T) {
	root := t.TempDir() + "/store"
	s, err := fileblob.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(root, ".sluice", "tmp", "left-by-a-crash")
	if err := os.WriteFile(stale, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.List(t.Context(), "", "",
		func(e blob.Entry) bool { t.Errorf("listed %s", e.Key); return true }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), ".sluice/tmp/left-by-a-crash", blob.All()); !errs.Is(err,
		errs.Invalid) {
		t.Fatalf("the store's own files are readable as objects: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := fileblob.Open(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a stale file outlived the next open: %v", err)
	}
}

// A pool that was restored from a copy has lost its attributes; it still works, by compare-and-swap
// too.
func TestObjectsWithoutAttribute(t *testing.T) {
	root := t.TempDir() + "/store"
	s, err := fileblob.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "head"), []byte("copied"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := s.Get(t.Context(), "head", blob.All())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutIfMatch(t.Context(), "head", []byte("new"), o.ETag); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutIfMatch(t.Context(), "head", []byte("newer"), o.ETag); !errs.Is(err,
		errs.Conflict) {
		t.Fatalf("the old etag still matches: %v", err)
	}
}

func TestOpenRefusesAMissingParent(t *testing.T) {
	_, err := fileblob.Open(t.TempDir() + "/no/store")
	if !errs.Is(err, errs.NotFound) || errs.RemedyOf(err) == "" {
		t.Fatalf("kind %q, remedy %q: %v", errs.KindOf(err), errs.RemedyOf(err), err)
	}
}
