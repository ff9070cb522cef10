// Package footholds is what an attacker tries who is outside of every VM: who has a token of
// another tenant, speaks to an NBD server, or supplies an image. Each foothold is a table of
// attempts on a target that its caller names: a real fleet, or a part of it with holes.
//
// An attempt says itself whether it was refused for the reason that it should be.
package footholds

import (
	"context"
	"fmt"
	"time"
)

// Attempt is something that must be refused.
type Attempt struct {
	Name string
	// Do makes it. nil: it was refused as it should be; else what came of it instead.
	Do func(context.Context) error
}

// Finding is an attempt that got on.
type Finding struct {
	Name string
	What error
}

// patient bounds an attempt: one that isn't answered by then is a finding itself.
const patient = 3 * time.Minute

// Make makes all attempts, one after another, and returns those that got on.
func Make(ctx context.Context, all []Attempt) []Finding {
	var found []Finding
	made := map[string]bool{}
	for _, a := range all {
		if made[a.Name] {
			found = append(found, Finding{a.Name, fmt.Errorf("two attempts have this name")})
		}
		made[a.Name] = true
		one, cancel := context.WithTimeout(ctx, patient)
		if err := a.Do(one); err != nil {
			found = append(found, Finding{a.Name, err})
		}
		cancel()
	}
	return found
}
