package memcg

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const mounts = "/sys/fs/cgroup"

// Of returns the cgroup that a process is in, in every hierarchy that is mounted here. Not all have
// the memory controller.
func Of(pid int) ([]Cgroup, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Cgroup
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// hierarchy-ID:controllers:path
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		isV2 := parts[0] == "0"
		for _, mount := range []string{parts[1], "unified"} {
			dir := filepath.Join(mounts, mount, parts[2])
			if isV2 == (mount == "" || mount == "unified") && isDir(dir) {
				all = append(all, Cgroup{Dir: dir, V2: isV2})
				break
			}
		}
	}
	return all, lines.Err()
}

// Beside returns those cgroups with a name that exist beside some others.
func Beside(all []Cgroup, name string) []Cgroup {
	var found []Cgroup
	for _, g := range all {
		g.Dir = filepath.Join(filepath.Dir(g.Dir), name)
		if isDir(g.Dir) {
			found = append(found, g)
		}
	}
	return found
}

// EnterBeside moves this process into the cgroups with a name beside those that it is in. Nothing
// is done where there are none.
func EnterBeside(name string) error {
	own, err := Of(os.Getpid())
	if err != nil {
		return fmt.Errorf("enter cgroup %s: %w", name, err)
	}
	for _, g := range Beside(own, name) {
		if err := g.Enter(); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", name, err)
		}
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Kills returns how many processes the kernel has killed for lack of memory, by the first of the
// cgroups that counts them. fs.ErrNotExist: none does.
func Kills(all []Cgroup) (int64, error) {
	for _, g := range all {
		if n, err := g.OOMKills(); !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
	}
	return 0, fs.ErrNotExist
}

// Counter notices when the kernel kills processes of some cgroups for lack of memory. Safe for
// concurrent use.
type Counter struct {
	places [][]Cgroup // each is one place in every hierarchy

	mu    sync.Mutex
	known int64
	grown time.Time // when a kill was noticed last
}

// NewCounter returns a Counter that knows what was before it. Each place is one cgroup in every
// hierarchy, as Of returns it.
func NewCounter(places ...[]Cgroup) *Counter {
	c := &Counter{places: places}
	c.known = c.count()
	return c
}

// count returns 0 for places where nothing counts: nothing is ever noticed there.
func (c *Counter) count() int64 {
	var sum int64
	for _, all := range c.places {
		n, _ := Kills(all)
		sum += n
	}
	return sum
}

// Look takes in what the kernel has counted by now. To call it from time to time tells new kills
// from old ones.
func (c *Counter) Look() {
	n := c.count()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.known {
		c.known, c.grown = n, time.Now()
	}
}

// Recent reports whether there was a kill between now and that long ago, or one since the last
// look.
func (c *Counter) Recent(within time.Duration) bool {
	c.Look()
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.grown.IsZero() && time.Since(c.grown) < within
}
