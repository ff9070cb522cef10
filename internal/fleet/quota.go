package fleet

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Quantity is something that a quota bounds.
type Quantity string

// The quantities. Machines, disks and secrets count while their records exist. What runs counts
// while it is meant to run, or still is on a worker.
const (
	QuotaMachines   Quantity = "machines"
	QuotaRunning    Quantity = "running"    // machines
	QuotaCPU        Quantity = "cpu_millis" // of machines that run
	QuotaMemory     Quantity = "memory_mib" // of machines that run
	QuotaDisk       Quantity = "disk_bytes" // sizes of machines' disks
	QuotaSecrets    Quantity = "secrets"
	QuotaExecs      Quantity = "execs"       // commands that run, as sessions of the API
	QuotaLogs       Quantity = "logs"        // streams of logs
	QuotaImages     Quantity = "images"      // of the whole fleet
	QuotaImageBytes Quantity = "image_bytes" // sizes of images' disks
	// SecretBytes is counted, and bounded for each app alike; see MaxAppSecrets.
	SecretBytes Quantity = "secret_bytes"
)

// Unlimited as a limit takes a default's away.
const Unlimited = -1

// maxLimit keeps sums from overflowing.
const maxLimit = 1 << 53

// ofNetworks and ofFleet are what can be bounded for machines' scopes, and for the whole fleet.
var (
	ofNetworks = []Quantity{QuotaMachines, QuotaRunning, QuotaCPU, QuotaMemory, QuotaDisk,
		QuotaSecrets, QuotaExecs, QuotaLogs}
	ofFleet = []Quantity{QuotaImages, QuotaImageBytes}
)

// Amounts says how much of each quantity. One that isn't there is 0 in a use, and no bound among
// limits.
type Amounts map[Quantity]int64

// Add adds o to a, which it changes. What comes to 0 isn't there any more.
func (a Amounts) Add(o Amounts, times int64) {
	for q, n := range o {
		if a[q] += n * times; a[q] == 0 {
			delete(a, q)
		}
	}
}

// QuotaScope is what a quota is for: a network, an app of a network, or the whole fleet. Default is
// for each network, where that has none of its own.
//
// There is none for an app in all networks together: its use would be one record, for which tenants
// who know nothing of each other would contend.
type QuotaScope struct {
	Network NetworkName `json:"network,omitempty"`
	App     AppName     `json:"app,omitempty"`
	Default bool        `json:"default,omitempty"`
}

// ID names a scope among all.
func (s QuotaScope) ID() string {
	switch {
	case s.Default:
		return "default"
	case s.Network != "" && s.App != "":
		return "network/" + string(s.Network) + "/" + string(s.App)
	case s.Network != "":
		return "network/" + string(s.Network)
	}
	return "fleet"
}

// ScopeOfID is the reverse of ID.
func ScopeOfID(id string) QuotaScope {
	kind, rest, _ := strings.Cut(id, "/")
	switch kind {
	case "default":
		return QuotaScope{Default: true}
	case "network":
		network, app, _ := strings.Cut(rest, "/")
		return QuotaScope{Network: NetworkName(network), App: AppName(app)}
	}
	return QuotaScope{}
}

// String is the scope as errors have it.
func (s QuotaScope) String() string {
	switch {
	case s.Default:
		return "each network"
	case s.Network != "" && s.App != "":
		return "app " + string(s.App) + " in network " + string(s.Network)
	case s.Network != "":
		return "network " + string(s.Network)
	}
	return "the fleet"
}

// Quantities returns what can be bounded in a scope.
func (s QuotaScope) Quantities() []Quantity {
	if s == (QuotaScope{}) {
		return slices.Clone(ofFleet)
	}
	return slices.Clone(ofNetworks)
}

// Check returns nil if the scope's names are names.
func (s QuotaScope) Check() error {
	if s.Default && (s.Network != "" || s.App != "") {
		return errs.New(errs.Invalid, "the default quota is for all networks, not for %s",
			QuotaScope{Network: s.Network, App: s.App}).
			WithRemedy("leave out the network and the app, or the default")
	}
	if s.Network != "" {
		if err := CheckName("network", string(s.Network)); err != nil {
			return err
		}
	}
	if s.App == "" {
		return nil
	}
	if s.Network == "" {
		return errs.New(errs.Invalid, "a quota of app %s in all networks can't be kept", s.App).
			WithRemedy("give the network, too")
	}
	return CheckName("app", string(s.App))
}

// QuotaScopes returns all scopes that what is of an app in a network counts for.
func QuotaScopes(network NetworkName, app AppName) []QuotaScope {
	return []QuotaScope{{Network: network}, {Network: network, App: app}}
}

// Quota is the record of a quota.
type Quota struct {
	Limits Amounts `json:"limits"`
}

// Change returns the limits with some set anew; nil takes one away.
func (q Quota) Change(of QuotaScope, limits map[Quantity]*int64) (Quota, error) {
	next := Amounts{}
	maps.Copy(next, q.Limits)
	for what, limit := range limits {
		switch {
		case !slices.Contains(of.Quantities(), what):
			return q, errs.New(errs.Invalid, "%s has no quota of %q", of, what).
				WithRemedy("it has quotas of %s", joined(of.Quantities()))
		case limit == nil:
			delete(next, what)
		case *limit < Unlimited || *limit > maxLimit:
			return q, errs.New(errs.Invalid, "a quota of %d %s is not from 0 to %d", *limit, what,
				int64(maxLimit)).
				WithRemedy("give a number in that range, or %d for no bound", Unlimited)
		default:
			next[what] = *limit
		}
	}
	return Quota{Limits: next}, nil
}

func joined(all []Quantity) string {
	words := make([]string, 0, len(all))
	for _, q := range all {
		words = append(words, string(q))
	}
	return strings.Join(words, ", ")
}

// Uses is what a machine counts for. imageBytes is the size of its image, which its disk has where
// its config doesn't say another.
//
// A move changes none of it: neither what is wanted of the machine, nor that it has a place.
func (m Machine) Uses(imageBytes int64) Amounts {
	size := m.Config.DiskGiB << 30
	if size == 0 {
		size = imageBytes
	}
	a := Amounts{QuotaMachines: 1, QuotaDisk: size}
	if m.Desired == DesiredStarted || m.Placement != nil {
		a[QuotaRunning], a[QuotaCPU] = 1, m.Config.Resources.CPUMillis
		a[QuotaMemory] = m.Config.Resources.MemoryMiB
	}
	return a
}

// QuotaView is what bounds a scope, and what it uses.
type QuotaView struct {
	Scope  QuotaScope
	Own    Amounts // limits that were set for it
	Limits Amounts // those that count: its own, and the default's where it has none
	Used   Amounts
}

// Quotas bounds what networks and apps may use.
type Quotas interface {
	// Quota returns one scope's.
	Quota(ctx context.Context, of QuotaScope) (QuotaView, error)
	// Quotas returns all scopes that have a quota or use something, ordered by id.
	Quotas(ctx context.Context) ([]QuotaView, error)
	// SetQuota changes some limits: nil takes one away. What is used beyond a lower limit stays,
	// and doesn't grow.
	SetQuota(ctx context.Context, of QuotaScope, limits map[Quantity]*int64) (QuotaView, error)
	// ClearQuota takes all of a scope's own limits away.
	ClearQuota(ctx context.Context, of QuotaScope) error
	// Limit returns one limit from memory, as it counts now; false: there is none.
	Limit(of QuotaScope, what Quantity) (int64, bool)
}

// OverQuota is the error for who would use more than a quota lets.
func OverQuota(of QuotaScope, what Quantity, limit, used, asked int64) error {
	return errs.New(errs.Exhausted, "%s has a quota of %s: it uses %s, and this would add %s", of,
		what.Text(limit), what.Text(used), what.Text(asked)).
		WithRemedy("%s; or have the fleet's admin raise it: sluice quota set %s --%s N",
			what.lessens(of), of.flags(), what.Flag())
}
