package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestMistypedNetworksAndApps are told from those that are yet to come, and named as they may have
// been meant; nothing is changed.
func TestMistypedNetworksAndApps(t *testing.T) {
	c := story(t)
	c.stdin = "value"
	before := c.fleet.Mutations()
	for _, s := range []struct {
		args string
		want string
	}{
		{"secret set A --network prdo --app shop",
			"there is no network prdo; did you mean: prod"},
		{"secret set A --network prod --app shpo",
			"there is no app shpo in network prod; did you mean: shop"},
		{"secret list --network prod --app shpo", "did you mean: shop"},
		{"token create ci --verb read --network prdo", "did you mean: prod"},
		{"token create ci --verb read --app shpo", "there is no app shpo; did you mean: shop"},
		{"token create ci --grant use@prod --grant read@prod/shpo", "did you mean: shop"},
		{"quota set prdo --machines 1", "did you mean: prod"},
		{"quota set prod --app shpo --machines 1", "did you mean: shop"},
		{"quota show prdo", "did you mean: prod"},
		{"quota show faraway", "there is no network faraway\n"},
	} {
		_, stderr, code := c.run(strings.Fields(s.args)...)
		if code != exitNotFound || !strings.Contains(stderr, s.want) ||
			!strings.Contains(stderr, "--new") {
			t.Errorf("%s: exit %d, %s", s.args, code, stderr)
		}
	}
	if c.fleet.Mutations() != before {
		t.Error("what is refused changes something")
	}
	c.must("secret", "set", "A", "--network", "test", "--app", "new", "--new")
	c.must("token", "create", "ci", "--verb", "read", "--network", "test", "--new")
	c.must("quota", "set", "test", "--machines", "1", "--new")
	c.must("secret", "set", "A", "--network", "prod", "--app", "shop")
}

// TestWhatIsSuggestedIsSeen: who sees one network is told of no other.
func TestWhatIsSuggestedIsSeen(t *testing.T) {
	c := story(t)
	c.must("machine", "create", "x", "--app", "hidden", "--network", "prox", "--image", "base")
	c.as(fleet.Grant{Network: "prod", App: "shop", Verb: "admin"})
	_, stderr, code := c.run("token", "create", "ci", "--verb", "read", "--network", "prix",
		"--app", "shop")
	if code != exitNotFound || strings.Contains(stderr, "prox") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	c.stdin = "value"
	c.must("secret", "set", "A", "--network", "prod", "--app", "shop")
}

// as has the commands that follow run with a token of some grants.
func (c *cli) as(grants ...fleet.Grant) {
	c.t.Helper()
	secret := authz.NewSecret()
	if err := c.fleet.CreateToken(context.Background(), fleet.Token{ID: fleet.TokenID(secret.ID),
		Name: "t" + secret.ID[:8], Hash: secret.Hash, Grants: grants,
		CreatedAt: time.Now()}); err != nil {
		c.t.Fatal(err)
	}
	c.env["SLUICE_TOKEN"] = secret.Text
}

// TestNamesThatAreTwice: whatever takes one says which there are, and by what each is meant.
func TestNamesThatAreTwice(t *testing.T) {
	c := newCLI(t)
	for _, network := range []string{"blue", "green"} {
		c.must("machine", "create", "web-1", "--app", "shop", "--network", network,
			"--image", "base")
	}
	c.must("machine", "create", "one", "--app", "a1", "--network", "blue", "--image", "base")
	c.must("machine", "create", "one", "--app", "a2", "--network", "blue", "--image", "base")
	const first, second = "01000000000001", "01000000000002"
	before := c.fleet.Mutations()
	for _, args := range []string{"status shop/web-1", "destroy shop/web-1 --yes", "stop web-1",
		"events shop/web-1", "exec shop/web-1 -- true", "logs shop/web-1"} {
		_, stderr, code := c.run(append([]string{"machine"}, strings.Fields(args)...)...)
		if code == 0 || !strings.Contains(stderr, "in network blue ("+first+")") ||
			!strings.Contains(stderr, "in network green ("+second+")") ||
			!strings.Contains(stderr, "say which: "+first+", or "+second) {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
	if _, stderr, _ := c.run("machine", "stop", "one"); !strings.Contains(stderr,
		"say which: a1/one, or a2/one") {
		t.Errorf("of two apps: %s", stderr)
	}
	if c.fleet.Mutations() != before {
		t.Error("something is changed")
	}
	c.must("machine", "status", second)
}

// TestTokensOfOneName are told apart by what they let do.
func TestTokensOfOneName(t *testing.T) {
	c := story(t)
	operator := c.env["SLUICE_TOKEN"]
	for _, network := range []string{"blue", "green"} {
		c.as(fleet.Grant{Network: fleet.NetworkName(network), Verb: "admin"})
		c.must("token", "create", "ci", "--verb", "read", "--network", network, "--new")
	}
	c.env["SLUICE_TOKEN"] = operator
	before := c.fleet.Mutations()
	for _, verb := range []string{"revoke", "show"} {
		_, stderr, code := c.run("token", verb, "ci")
		if code != exitConflict || !strings.Contains(stderr, "(read@blue, made by ") ||
			!strings.Contains(stderr, "(read@green, made by ") ||
			!strings.Contains(stderr, "say which by its id: ") {
			t.Errorf("%s: exit %d, %s", verb, code, stderr)
		}
	}
	if c.fleet.Mutations() != before {
		t.Error("one is revoked")
	}
}
