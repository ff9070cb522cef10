package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// known is the networks and apps of which there is something that the caller may see: a machine, a
// secret or a quota.
type known struct {
	networks map[string]bool
	apps     map[string]map[string]bool // by network; "" for all
}

// readKnown asks the server. all is false for one that doesn't say, because it is older.
func readKnown(ctx context.Context, c *client.Client) (k known, all bool, err error) {
	k = known{networks: map[string]bool{}, apps: map[string]map[string]bool{}}
	quotas, err := c.Quotas(ctx)
	if client.IsCode(err, string(errs.NotFound)) {
		return k, false, nil
	} else if err != nil {
		return k, false, err
	}
	for _, q := range quotas {
		if rest, ok := strings.CutPrefix(q.ID, "network/"); ok {
			network, app, _ := strings.Cut(rest, "/")
			k.add(network, app)
		}
	}
	networks, err := c.Networks(ctx) // of which one may be empty
	for _, n := range networks {
		k.add(n.Name, "")
	}
	return k, err == nil, err
}

func (k known) add(network, app string) {
	k.networks[network] = true
	for _, n := range []string{"", network} {
		if k.apps[n] == nil {
			k.apps[n] = map[string]bool{}
		}
		if app != "" {
			k.apps[n][app] = true
		}
	}
}

// check refuses a network, or an app in it, of which there is nothing: it is mistyped more often
// than meant, and what is set for it would be for nobody. "" is any.
func (k known) check(network, app, remedy string) error {
	if network != "" && !k.networks[network] {
		return unknownName("there is no network %s", network, k.networks, remedy)
	}
	if app == "" || k.apps[network][app] {
		return nil
	}
	where := ""
	if network != "" {
		where = " in network " + network
	}
	return unknownName("there is no app %s"+where, app, k.apps[network], remedy)
}

func unknownName(format, name string, names map[string]bool, remedy string) error {
	all := slices.Sorted(maps.Keys(names))
	e := errs.New(errs.NotFound, format+"%s", name, didYouMean(spelled(name, all)))
	return e.WithRemedy("%s", remedy)
}

// newThings lets a command be told that its network or app is yet to come.
type newThings struct{ ok bool }

func (n *newThings) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&n.ok, "new", false,
		"also if there is nothing of that network or app yet")
}

// mustKnow refuses networks and apps, in pairs, of which there is nothing, unless --new was given.
func (n *newThings) mustKnow(ctx context.Context, c *client.Client, pairs ...[2]string) error {
	if n.ok {
		return nil
	}
	k, all, err := readKnown(ctx, c)
	if err != nil || !all {
		return err
	}
	for _, p := range pairs {
		if err := k.check(p[0], p[1],
			"see: sluice quota list; if it is yet to come, say so: --new"); err != nil {
			return err
		}
	}
	return nil
}
