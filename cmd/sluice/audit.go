package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

func newAuditCommand(d *deps) *cobra.Command {
	return newNoun("audit", "See who has done what, and check that nobody has changed it",
		newAuditListCommand(d),
		newAuditVerifyCommand(d),
	)
}

func newAuditListCommand(d *deps) *cobra.Command {
	var since, until string
	var q client.AuditQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List changes and execs, oldest first",
		Long: `List each call that changed something, and each exec: when it was answered, who made
it, from where, what it was about, and how it went. Of an exec the program is told,
and a hash of the whole command. What was done in the last second may be missing. It
ends with 1 if something was removed or changed in what it read; verify reads all.
` + exitTable,
		Example: `  sluice audit list --since 24h
  sluice audit list --who ci --what /v1/machines --json`,
		Args: exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) (err error) {
			if q.Since, err = parseMoment("since", since); err != nil {
				return err
			}
			if q.Until, err = parseMoment("until", until); err != nil {
				return err
			}
			entries, broken, err := c.Audit(cmd.Context(), q)
			if err != nil {
				return err
			}
			if err := d.result(entries,
				func(w io.Writer) error { return printAudit(w, entries) }); err != nil {
				return err
			}
			return brokenAudit(broken)
		}),
	}
	cmd.Flags().StringVar(&since, "since", "", "a time like 2026-01-31T12:00:00Z, or how long ago")
	cmd.Flags().StringVar(&until, "until", "", "likewise")
	cmd.Flags().StringVar(&q.Who, "who", "", "the exact name of a token, its id, or operator")
	cmd.Flags().StringVar(&q.What, "what", "", "a part of the call, or of an object as machine/ID")
	return cmd
}

// parseMoment reads a time, or how long ago it was; "" is the zero time.
func parseMoment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usageError("--%s %q is neither a time like 2026-01-31T12:00:00Z nor like 24h",
			flag, text)
	}
	return at, nil
}

func printAudit(w io.Writer, entries []api.AuditEntry) error {
	var rows [][]string
	for _, e := range entries {
		result := strconv.Itoa(e.Status)
		if e.Status == 0 {
			result = "unknown"
		}
		if e.Code != "" {
			result += " " + e.Code
		}
		what := strings.Join(e.Objects, " ")
		if e.Exec != nil {
			what += " " + e.Exec.Program + " sha256:" + e.Exec.SHA256[:min(12, len(e.Exec.SHA256))]
		}
		rows = append(rows, []string{strconv.FormatInt(e.Seq, 10), timestamp(e.Time), e.Subject,
			e.Token, e.Remote, e.Call, strings.TrimSpace(what), result, e.Note})
	}
	return printTable(w, []string{"SEQ", "TIME", "WHO", "TOKEN", "FROM", "CALL", "WHAT", "RESULT",
		"NOTE"}, rows)
}

func newAuditVerifyCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Check that nothing of the audit log was removed or changed",
		Long: `Walk the whole audit log, and name the first place at which something was removed,
changed, moved or doubled, or at which its end was cut off. It ends with 1 if there is
one. The hash that it prints proves all before it: note it in another place, to
compare later.
` + exitTable,
		Example: "  sluice audit verify",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			r, err := c.VerifyAudit(cmd.Context())
			if err != nil {
				return err
			}
			if err := d.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%d entries in %d objects, from %s to %s\nhash %s\n",
					r.Entries, r.Objects, orDash(timestamp(r.First)), orDash(timestamp(r.Last)),
					orDash(r.Hash))
				return err
			}); err != nil {
				return err
			}
			return brokenAudit(r.Break)
		}),
	}
}

// brokenAudit says where the audit log isn't what was written; nil: it is.
func brokenAudit(at *api.AuditBreak) error {
	if at == nil {
		return nil
	}
	return &api.Error{Code: "corrupt", Message: fmt.Sprintf(
		"the audit log is broken at object %d: %s", at.Object, at.Why),
		Remedy: "what sluice audit verify checks before that is whole; see docs/operations.md, Audit"}
}
