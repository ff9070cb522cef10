package fleettest

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// Traffic is what went over the workers' links since CountTraffic, by packet counters in the kernel
// of each worker's network.
type Traffic struct {
	// bytes sent by a worker, or a machine on it, to another worker or a machine there
	BetweenWorkers int64
	Total          int64 // bytes sent by workers to anybody
}

// Sub returns what came since before.
func (t Traffic) Sub(before Traffic) Traffic {
	return Traffic{t.BetweenWorkers - before.BetweenWorkers, t.Total - before.Total}
}

// CountTraffic puts a counter in front of each worker's link. What goes from worker to worker is
// told by its destination: another worker's address, or a machine's.
func (f *Fleet) CountTraffic() {
	f.t.Helper()
	s, err := f.State()
	if err != nil {
		f.t.Fatal(err)
	}
	var workers []string
	for _, h := range s.Workers {
		workers = append(workers, h.Address)
	}
	rules := fmt.Sprintf(`table netdev fleettest {
  counter between { }
  counter total { }
  chain out {
    type filter hook egress device "eth0" priority 0; policy accept;
    ip6 daddr { %s, fdaa::/16 } counter name between
    ip6 daddr != { fe80::/10, ff00::/8 } counter name total
  }
}`, strings.Join(workers, ", "))
	for _, h := range s.Workers {
		cmd := exec.CommandContext(context.Background(), "ip", "netns", "exec", f.Netns(h.Name),
			"nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			f.t.Fatalf("count traffic of %s: %v\n%s", h.Name, err, out)
		}
	}
}

// Traffic reads the counters.
func (f *Fleet) Traffic() Traffic {
	f.t.Helper()
	s, err := f.State()
	if err != nil {
		f.t.Fatal(err)
	}
	var sum Traffic
	for _, h := range s.Workers {
		out, err := exec.CommandContext(context.Background(), "ip", "netns", "exec",
			f.Netns(h.Name),
			"nft", "-j", "list", "counters", "table", "netdev", "fleettest").Output()
		if err != nil {
			f.t.Fatalf("read counters of %s: %v", h.Name, err)
		}
		var list struct {
			Nftables []struct {
				Counter *struct {
					Name  string
					Bytes int64
				}
			}
		}
		if err := json.Unmarshal(out, &list); err != nil {
			f.t.Fatal(err)
		}
		for _, e := range list.Nftables {
			switch {
			case e.Counter == nil:
			case e.Counter.Name == "between":
				sum.BetweenWorkers += e.Counter.Bytes
			case e.Counter.Name == "total":
				sum.Total += e.Counter.Bytes
			}
		}
	}
	return sum
}
