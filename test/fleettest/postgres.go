package fleettest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

// PostgresImage is the name of the image that CreatePostgresImage makes.
const PostgresImage = "postgres"

const (
	pgPrograms = "/usr/lib/postgresql/15/bin/"
	pgData     = "/var/lib/postgresql/data"
	// pgBench does not wait long for a server that is gone: it tells, and ends.
	pgPatience = 5 * time.Minute
)

// CreatePostgresImage makes an image of Debian's PostgreSQL, as its packages are.
func (f *Fleet) CreatePostgresImage() {
	f.t.Helper()
	f.CreateDebianImage(PostgresImage, 2<<30, "postgresql-15")
}

// PostgresConfig is a machine that runs PostgreSQL with its own defaults, which wait for the disk
// at each commit, and with checksums on its pages. The first start makes the database.
func PostgresConfig() api.MachineConfig {
	const as = "setpriv --reuid=postgres --regid=postgres --init-groups " + pgPrograms
	return api.MachineConfig{
		// SIGINT: don't wait for clients
		Image: PostgresImage, CPUs: 1, MemoryMiB: 512, StopSignal: "SIGINT", StopTimeout: 60,
		Services: []api.Service{{
			Name: "postgres",
			Cmd: []string{"/bin/sh", "-ec", "cd /; test -s " + pgData + "/PG_VERSION || " +
				as + "initdb --data-checksums --auth=trust --username=postgres --no-instructions " +
				pgData + "; exec " + as + "postgres -D " + pgData},
			Check: &api.Check{Kind: "exec", Cmd: []string{pgPrograms + "pg_isready", "-q", "-h",
				"127.0.0.1", "-U", "postgres"},
				Interval: 1, Timeout: 20, Grace: 120},
		}},
	}
}

// Postgres is the database in a machine.
type Postgres struct {
	f   *Fleet
	ref string
}

// Postgres returns the database in a machine that PostgresConfig configured.
func (f *Fleet) Postgres(ref string) Postgres { return Postgres{f, ref} }

// pgCommand is one of PostgreSQL's programs, as the database's owner.
func pgCommand(program string, args ...string) []string {
	return append([]string{"env", "PGHOST=127.0.0.1", "PGUSER=postgres", pgPrograms + program},
		args...)
}

// Query runs statements, and returns their rows, a line each, with | between columns.
func (p Postgres) Query(sql string) string {
	p.f.t.Helper()
	return strings.TrimSpace(p.f.Run(p.ref, pgCommand("psql", "-qAtX", "-v", "ON_ERROR_STOP=1",
		"-c", sql)...))
}

// BenchInit makes pgbench's tables, of 100,000 accounts for each unit of scale.
func (p Postgres) BenchInit(scale int) {
	p.f.t.Helper()
	p.f.Run(p.ref, pgCommand("pgbench", "-q", "-i", "-s", strconv.Itoa(scale))...)
}

// Bench runs pgbench's transactions for a while, and returns how many were committed in a second.
func (p Postgres) Bench(ctx context.Context, clients int,
	d time.Duration) (tps float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, d+pgPatience)
	defer cancel()
	out, err := p.f.TryRun(ctx, p.ref, pgCommand("pgbench", "-n", "-c", strconv.Itoa(clients), "-T",
		strconv.Itoa(int(d.Seconds())))...)
	if err != nil {
		return 0, err
	}
	return TPS(out)
}

// TPS finds the transactions per second in what pgbench prints.
func TPS(out string) (float64, error) {
	_, after, ok := strings.Cut(out, "\ntps = ")
	if !ok {
		return 0, fmt.Errorf("pgbench tells no tps: %s", out)
	}
	number, _, _ := strings.Cut(after, " ")
	return strconv.ParseFloat(number, 64)
}

// MustBeWhole fails the test unless every page and index is sound, as PostgreSQL's own checker sees
// it, and the balances that pgbench's transactions keep equal are equal.
func (p Postgres) MustBeWhole() {
	p.f.t.Helper()
	p.f.Run(p.ref, pgCommand("pg_amcheck", "--install-missing", "--heapallindexed",
		"--parent-check", "-d", "postgres")...)
	if err := CheckBenchSums(p.Query(BenchSums)); err != nil {
		p.f.t.Fatal(err)
	}
}

// BenchSums asks for what pgbench's transactions keep equal.
const BenchSums = `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
	(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)`

// CheckBenchSums checks the answer to BenchSums.
func CheckBenchSums(row string) error {
	sums := strings.Split(row, "|")
	if len(sums) != 4 || len(slices.Compact(sums)) != 1 {
		return fmt.Errorf("the sums of accounts, tellers, branches and history differ: %s", row)
	}
	return nil
}

// Commits is a client outside of the machine that commits rows all the time, one after another, and
// remembers those whose commit was acknowledged to it. It connects again for as long as the test
// runs.
type Commits struct {
	pg    Postgres
	next  int
	mu    sync.Mutex
	acked map[int]bool
}

// WatchCommits makes the table and begins; it ends with the test.
func (p Postgres) WatchCommits() *Commits {
	p.f.t.Helper()
	p.Query("CREATE TABLE ledger (n bigint PRIMARY KEY, body text NOT NULL)")
	c := &Commits{pg: p, acked: map[int]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			c.session(ctx)
			time.Sleep(50 * time.Millisecond)
		}
	})
	p.f.t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// session commits rows until the connection is lost. psql prints what a statement returns once its
// commit is acknowledged, and ends at the first error.
func (c *Commits) session(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, out := io.Pipe()
	in, statements := io.Pipe()
	var psql sync.WaitGroup
	psql.Go(func() {
		_, err := c.pg.f.RunExec(ctx, c.pg.ref, client.Exec{
			Cmd: pgCommand("psql", "-qAtX", "-v", "ON_ERROR_STOP=1"), Stdin: in, Stdout: out,
		})
		out.CloseWithError(err) // either way there are no more rows
		in.Close()
	})
	defer psql.Wait()
	defer cancel()
	lines := bufio.NewScanner(rows)
	for {
		c.next++ // also after a failure: what it was may have been committed
		if _, err := fmt.Fprintf(statements,
			"INSERT INTO ledger SELECT %d, md5('%d') RETURNING n;\n", c.next, c.next); err != nil {
			return
		}
		if !lines.Scan() || lines.Text() != strconv.Itoa(c.next) {
			return
		}
		c.mu.Lock()
		c.acked[c.next] = true
		c.mu.Unlock()
	}
}

// Acked are the rows whose commit was acknowledged so far.
func (c *Commits) Acked() map[int]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.acked)
}

// Await waits until there are more acknowledged rows than before.
func (c *Commits) Await(before, more int, limit time.Duration) {
	c.pg.f.t.Helper()
	c.pg.f.Eventually(limit, func() error {
		if n := len(c.Acked()); n < before+more {
			return fmt.Errorf("%d commits were acknowledged, %d of them before", n, before)
		}
		return nil
	})
}

// MustBeIn fails the test unless each row of acked is in the table as it was written. It returns
// how many rows there are: a commit whose acknowledgement was lost is there too.
func (c *Commits) MustBeIn(t testing.TB, acked map[int]bool) int {
	t.Helper()
	got := map[string]bool{}
	for n := range strings.FieldsSeq(c.pg.Query("SELECT n FROM ledger WHERE body = md5(n::text)")) {
		got[n] = true
	}
	lost := 0
	for n := range acked {
		if !got[strconv.Itoa(n)] {
			lost++
		}
	}
	if lost > 0 {
		t.Fatalf("%d of %d rows whose commit was acknowledged are gone", lost, len(acked))
	}
	if all := c.pg.Query("SELECT count(*) FROM ledger"); all != strconv.Itoa(len(got)) &&
		len(got) == 0 {
		t.Fatalf("of %s rows %d are as they were written", all, len(got))
	}
	return len(got)
}
