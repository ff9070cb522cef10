package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// fault is something that can go wrong at any moment of a drain, and how the operator puts it
// right.
type fault struct {
	name   string
	strike func(c *chaos)
	mend   func(c *chaos)
}

// chaos is one fleet under test.
type chaos struct {
	t        *testing.T
	f        *fleettest.Fleet
	rng      *rand.Rand
	machines []api.Machine
	acked    map[string]*fleettest.Acked
	source   string // the worker that is being drained
	victim   api.Machine
	struck   int // VMs hit inside; a drain may have moved the victim away before
}

func must(c *chaos, what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

func faults() []fault {
	inVM := func(role string) func(c *chaos) {
		return func(c *chaos) {
			vms, err := c.f.VMs(c.source)
			if err != nil {
				return // its worker has nothing to say: nothing to kill there
			}
			for _, vm := range vms {
				if vm.Machine == c.victim.ID {
					c.struck += min(1, c.f.KillInVM(c.source, role, vm.ID))
				}
			}
		}
	}
	nothing := func(*chaos) {}
	return []fault{
		{"worker daemon", func(c *chaos) {
			must(c, "kill worker daemon",
				c.f.KillDaemon(c.t.Context(), c.source))
		},
			func(c *chaos) { must(c, "start worker", c.f.Fleet.Start(c.t.Context(), c.source)) }},
		{"server", func(c *chaos) { must(c, "kill server", c.f.KillServer(c.t.Context())) },
			func(c *chaos) { must(c, "start server", c.f.StartServer(c.t.Context())) }},
		{"blockd", inVM("blockd"), nothing},
		{"VM", inVM("init"), nothing},
		{"whole worker", func(c *chaos) {
			must(c, "kill worker",
				c.f.Kill(c.t.Context(), c.source))
		},
			func(c *chaos) { must(c, "start worker", c.f.Fleet.Start(c.t.Context(), c.source)) }},
	}
}

func TestKillAnythingDuringADrain(t *testing.T) {
	rounds, seed := number("SLUICE_CHAOS_ROUNDS", 50),
		number("SLUICE_CHAOS_SEED", time.Now().UnixNano())
	t.Logf("seed %d, %d rounds", seed, rounds)
	f := fleettest.Start(t, fleettest.Options{Workers: 3, Pool: 1,
		Args: []string{"--worker-suspect", "1500ms", "--worker-down", "3s"}})
	c := &chaos{t: t, f: f, rng: rand.New(rand.NewPCG(uint64(seed), 0)),
		acked: map[string]*fleettest.Acked{}}
	for i, network := range []string{"green", "green", "blue"} {
		m := f.Create(fmt.Sprintf("m%d", i), network, "w1", fleettest.LedgerConfig())
		c.machines = append(c.machines, m)
		c.acked[m.ID] = fleettest.WatchAcked(t, f, m.ID)
	}
	all := faults()
	for round := range int(rounds) {
		c.round(round, all[round%len(all)])
	}
	if c.struck < int(rounds)/len(all)/2 {
		t.Errorf("only %d blows to VMs hit anything in %d rounds: this run proves little",
			c.struck, rounds)
	}
	t.Logf("%d blows to VMs hit", c.struck)
	for _, m := range c.machines {
		t.Logf("%s: %d records acknowledged and found", m.Name, c.acked[m.ID].Last())
	}
}

// round drains a worker that has machines, strikes at a random moment, mends, and checks
// everything.
func (c *chaos) round(n int, fault fault) {
	c.t.Helper()
	c.pickSource()
	started := time.Now()
	d, err := c.f.StartDrain(c.t.Context(), c.source)
	must(c, "start drain", err)
	delay := time.Duration(c.rng.Int64N(int64(600 * time.Millisecond)))
	time.Sleep(delay)
	fault.strike(c)
	time.Sleep(time.Duration(c.rng.Int64N(int64(300 * time.Millisecond))))
	fault.mend(c)
	struck := fmt.Sprintf("round %d: %s of %s after %s", n, fault.name, c.source, delay)
	c.ends(d.ID, struck)
	for _, m := range c.machines {
		now := c.f.WaitHealthy(m.ID, 2*time.Minute)
		if now.Worker == c.source {
			c.t.Fatalf("%s: the drain ended, yet %s is on %s", struck, m.Name, now.Worker)
		}
		c.acked[m.ID].MustBeIn(c.f, m.ID)
	}
	c.nothingTwice(struck)
	_, err = c.f.Uncordon(c.t.Context(), c.source)
	must(c, "uncordon", err)
	c.t.Logf("%s: whole again after %s", struck, time.Since(started).Round(10*time.Millisecond))
}

// pickSource chooses a worker that has machines, and one of them as the victim.
func (c *chaos) pickSource() {
	c.t.Helper()
	c.victim = c.machines[c.rng.IntN(len(c.machines))]
	now := c.f.WaitHealthy(c.victim.ID, 2*time.Minute)
	c.source = now.Worker
}

// ends waits until the drain has ended. A blocker with a name is an answer while a fault lasts;
// once it is mended the drain must end.
func (c *chaos) ends(id, struck string) {
	c.t.Helper()
	var d api.Drain
	c.f.Eventually(90*time.Second, func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		var err error
		d, err = c.f.Drain(ctx, id)
		if err == nil && !client.DrainEnded(d) {
			err = fmt.Errorf("%s: drain is %s, blockers %+v, moves %+v", struck, d.State,
				d.Blockers, d.Moves)
		}
		return err
	})
	if d.State != "drained" {
		c.t.Fatalf("%s: drain ended as %s", struck, d.State)
	}
}

// nothingTwice checks that each machine has exactly one VM in the fleet.
func (c *chaos) nothingTwice(struck string) {
	c.t.Helper()
	c.f.Eventually(30*time.Second, func() error {
		count := map[string][]string{}
		for _, worker := range []string{"w1", "w2", "w3"} {
			vms, err := c.f.VMs(worker)
			if err != nil {
				return err
			}
			for _, vm := range vms {
				count[vm.Machine] = append(count[vm.Machine], worker+":"+vm.Phase)
			}
		}
		for _, m := range c.machines {
			if len(count[m.ID]) != 1 {
				return fmt.Errorf("%s: machine %s has VMs %v", struck, m.Name, count[m.ID])
			}
		}
		return nil
	})
}

func number(env string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(env), 10, 64); err == nil {
		return n
	}
	return otherwise
}
