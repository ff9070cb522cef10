//go:build bench

package device

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	pgBound   = 5 * time.Second
	pgRounds  = 3
	pgSeconds = 5
	pgScale   = 5 // of pgbench: half a million accounts
)

// modes are those of a disk that PostgreSQL is run on.
var modes = []struct {
	name  string
	bound time.Duration
}{{"durable", 0}, {"bounded", pgBound}}

// TestPostgres runs pgbench on disks of both modes and on the host's own file system, in turn, and
// compares.
func TestPostgres(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	kinds, dbs := []string{"host"}, map[string]*postgres{"host": startPostgres(t, t.TempDir())}
	for _, m := range modes {
		s := startServerIn(t, diskURL(p, s3, m.name), t.TempDir(), m.bound)
		run(t, "mkfs.ext4", "-q", s.Device)
		dir, _ := mount(t, s.Device, "ext4", "")
		kinds, dbs[m.name] = append(kinds, m.name), startPostgres(t, dir)
	}
	for _, k := range kinds {
		dbs[k].program("pgbench", "-q", "-i", "-s", strconv.Itoa(pgScale))
	}
	for _, latency := range []time.Duration{0, 5 * time.Millisecond} {
		p.SetLatency(latency)
		tps := map[string][]float64{}
		for range pgRounds {
			for _, k := range kinds {
				tps[k] = append(tps[k], dbs[k].bench(4))
			}
		}
		for _, k := range kinds {
			slices.Sort(tps[k])
			result(
				"pgbench with 4 clients, store %v away, %s: %.0f tps, / the host's own disk %.2f",
				latency, k,
				tps[k][pgRounds/2], tps[k][pgRounds/2]/tps["host"][pgRounds/2])
		}
	}
	p.SetLatency(0)
	for _, k := range kinds {
		dbs[k].mustBeWhole()
	}
}

// TestPostgresKilled kills the process that serves the disk amid pgbench and a ledger, attaches the
// disk again, and starts the database on what is there. Every row whose commit was acknowledged
// must be in it.
func TestPostgresKilled(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			url, host := diskURL(p, s3, "killed-"+m.name), t.TempDir()
			s := startServerIn(t, url, host, m.bound)
			run(t, "mkfs.ext4", "-q", s.Device)
			acked := ledgerUntilKilled(t, s)
			if len(acked) < 10 {
				t.Fatalf("only %d rows were committed", len(acked))
			}
			s = startServerIn(t, url, host, m.bound)
			dir, unmount := mount(t, s.Device, "ext4", "")
			db := startPostgres(t, dir)
			there := strings.Fields(db.query("SELECT n FROM ledger ORDER BY n"))
			for _, n := range acked {
				if !slices.Contains(there, n) {
					t.Errorf("row %s was committed, and is not there", n)
				}
			}
			db.mustBeWhole()
			db.stop()
			unmount()
			run(t, "e2fsck", "-f", "-n", s.Device)
			s.Close()
			result(
				"PostgreSQL on a %s disk whose process got a SIGKILL: all %d rows acknowledged are there, pg_amcheck and e2fsck find nothing",
				m.name, len(acked))
		})
	}
}

// ledgerUntilKilled commits rows, one at a time, beside pgbench, until the disk's process was
// killed, and returns those whose commit was acknowledged.
func ledgerUntilKilled(t *testing.T, s *server) (acked []string) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(s.Device, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }() // the device is gone
	db := startPostgres(t, dir)
	defer db.kill()
	db.program("pgbench", "-q", "-i", "-s", "1")
	db.query("CREATE TABLE ledger (n bigint PRIMARY KEY)")
	load := db.command("pgbench", "-n", "-c", "2", "-T", "60") // until the database is gone
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = load.Process.Kill(); _ = load.Wait() }()
	psql := db.command("psql", "-qAtX", "-v", "ON_ERROR_STOP=1")
	in, err := psql.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := psql.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := psql.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = psql.Process.Kill(); _ = psql.Wait() }()
	kill := time.AfterFunc(4*time.Second, s.Kill)
	defer kill.Stop()
	rows := bufio.NewReader(out)
	for n := 1; ; n++ {
		// psql prints the row when the commit is acknowledged.
		if _, err := fmt.Fprintf(in, "INSERT INTO ledger VALUES (%d) RETURNING n;\n",
			n); err != nil {
			break
		}
		row, err := rows.ReadString('\n')
		if err != nil {
			break
		}
		acked = append(acked, strings.TrimSpace(row))
	}
	db.kill()
	s.Reap()
	return acked
}

// postgres is a database whose files are below a directory. It listens on a socket only.
type postgres struct {
	t       *testing.T
	bin     string
	data    string
	sockets string
	owner   *syscall.Credential // it refuses to be root
	cmd     *exec.Cmd
}

// startPostgres starts the database that is below dir, made if there is none, with its own defaults
// and checksums on its pages. It ends with the test.
func startPostgres(t *testing.T, dir string) *postgres {
	t.Helper()
	p := &postgres{t: t, data: filepath.Join(dir, "data"), sockets: t.TempDir(),
		owner: postgresOwner(t)}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("no PostgreSQL: run scripts/setup.sh bench (%v)", err)
	}
	p.bin = found[len(found)-1]
	for _, d := range []string{dir, p.sockets} {
		// the test's directory is root's alone
		if err := os.Chmod(filepath.Dir(d), 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); err != nil {
		p.program("initdb", "--data-checksums", "--auth=trust", "--no-instructions", "-D", p.data)
	}
	p.cmd = p.command("postgres", "-D", p.data, "-k", p.sockets, "-c", "listen_addresses=")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out, err := p.command("pg_isready", "-q").CombinedOutput()
		if err == nil {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL does not start: %v: %s", err, out)
		}
	}
}

func postgresOwner(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("run scripts/setup.sh bench: %v", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// command is one of PostgreSQL's programs, as the database's owner.
func (p *postgres) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(p.bin, name), args...)
	c.Dir = p.sockets
	c.Env = append(os.Environ(), "PGHOST="+p.sockets, "PGUSER=postgres", "PGDATABASE=postgres")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner, Pdeathsig: syscall.SIGKILL}
	return c
}

func (p *postgres) program(name string, args ...string) string {
	p.t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (p *postgres) query(sql string) string {
	p.t.Helper()
	return strings.TrimSpace(p.program("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql))
}

// bench returns the transactions per second of a few seconds.
func (p *postgres) bench(clients int) float64 {
	p.t.Helper()
	out := p.program("pgbench", "-n", "-c", strconv.Itoa(clients), "-T", strconv.Itoa(pgSeconds))
	tps, err := fleettest.TPS(out)
	if err != nil {
		p.t.Fatal(err)
	}
	return tps
}

// mustBeWhole fails the test unless all pages and indexes are sound, as PostgreSQL's own checker
// sees it, and the sums are equal that pgbench's transactions keep so.
func (p *postgres) mustBeWhole() {
	p.t.Helper()
	p.program("pg_amcheck", "--install-missing", "--heapallindexed", "--parent-check",
		"-d", "postgres")
	if err := fleettest.CheckBenchSums(p.query(fleettest.BenchSums)); err != nil {
		p.t.Error(err)
	}
}

// stop ends the database in order.
func (p *postgres) stop() { p.end(syscall.SIGINT) }

// kill ends it as a crash does. Its processes notice that the first one is gone, and end.
func (p *postgres) kill() { p.end(syscall.SIGQUIT) }

func (p *postgres) end(sig os.Signal) {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Errorf("end PostgreSQL: %v", err)
	}
	_ = p.cmd.Wait() // how it ended was our doing
}
