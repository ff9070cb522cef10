package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

func newStoreCommand(d *deps) *cobra.Command {
	cmd := newNoun("store", "Look after the fleet's object store", newStoreCredentialsCommand(d))
	cmd.Long = "Look after the fleet's object store."
	return cmd
}

func newStoreCredentialsCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "credentials",
		Short: "Show which credentials of the store the server and each worker use",
		Long: `Show which credentials of the store the server and each worker use, by their names:
secrets aren't shown. When the store's key has been changed, it says whether the one
before can be deleted at the store.

A worker is current, older (it has not taken the server's newest yet), expired, own
(it uses its host's, which are changed there), revoked, or unknown: it has not said
since the server was started, or is of an earlier release.
` + exitTable,
		Example: "  sluice store credentials\n  sluice store credentials --json | jq .settled",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			s, err := c.StoreCredentials(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(s, func(w io.Writer) error { return printStoreCredentials(w, s) })
		}),
	}
}

func printStoreCredentials(w io.Writer, s api.StoreCredentials) error {
	if !s.Needed {
		_, err := fmt.Fprintln(w, "The store takes no credentials: who reaches its directory has it.")
		return err
	}
	workers := "the server's own"
	switch {
	case s.Withheld:
		workers = "none: each has its own"
	case s.Role != "":
		workers = "sessions of " + s.Role
	}
	source := map[string]string{"file": "its --store-credentials-file",
		"own": "the server's environment, profile or host"}[s.Source]
	err := printFields(w, [][2]string{{"Key", orDash(s.KeyID)}, {"From", source},
		{"Since", timestamp(s.Since)}, {"Expires", expiryOf(s.Expires)},
		{"Generation", fmt.Sprint(s.Generation)}, {"Workers get", workers}, {"Trouble", s.Trouble}})
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(s.Workers))
	var waits []string
	for _, x := range s.Workers {
		generation := ""
		if x.Generation != 0 {
			generation = fmt.Sprint(x.Generation)
		}
		state := x.State
		if x.Kept {
			state += " (kept over a restart)"
		}
		rows = append(rows, []string{x.Worker, x.Liveness, state, orDash(x.KeyID),
			orDash(generation), expiryOf(x.Expires)})
		if x.State == api.StoreCredentialsOlder || x.State == api.StoreCredentialsUnknown {
			waits = append(waits, x.Worker)
		}
	}
	if err := printTable(w, []string{"WORKER", "LIVENESS", "STATE", "KEY", "GENERATION", "EXPIRES"},
		rows); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, "\n"+verdictOf(s, waits))
	return err
}

// verdictOf says whether keys before the present one can be deleted.
func verdictOf(s api.StoreCredentials, waits []string) string {
	switch {
	case s.Settled:
		return "Settled: keys before this one can be deleted at the store, but for those that workers have of their own."
	case len(waits) > 0:
		return fmt.Sprintf("Not settled: keep earlier keys; %d workers have not said that they use the newest, the first is %s.",
			len(waits), waits[0])
	default:
		return "Not settled: keep earlier keys; newer ones can't be used: " + s.Trouble
	}
}

// expiryOf is when credentials end.
func expiryOf(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return timestamp(t)
}
