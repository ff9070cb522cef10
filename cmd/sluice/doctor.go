package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// finding is what one check found.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, broken, skipped
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Statuses of a finding.
const (
	statusOK      = "ok"
	statusBroken  = "broken"
	statusSkipped = "skipped" // it does not apply here; Detail says why
)

// found turns a check's outcome into a finding.
func found(check, detail string, err error) finding {
	if err == nil {
		return finding{Check: check, Status: statusOK, Detail: detail}
	}
	f := finding{Check: check, Status: statusBroken, Detail: err.Error(),
		Remedy: errs.RemedyOf(err)}
	var remote *api.Error
	if errors.As(err, &remote) {
		f.Remedy = remote.Remedy
	}
	return f
}

// doctorTimeout bounds each check.
const doctorTimeout = 10 * time.Second

func newDoctorCommand(d *deps) *cobra.Command {
	var store string
	var host bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host, the object store, the server and the workers",
		Long: `Check whether this host can run machines, whether the object store does what disks
need (conditional writes above all), and whether the server and the workers of the
fleet are well. Each finding that is broken says what to do about it.

EXIT STATUS
  0  nothing is broken
  1  something is broken`,
		Example: "  sluice doctor\n  sluice doctor --host=false\n  sluice doctor --store s3://bucket/prefix",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var findings []finding
			if host {
				findings = append(findings, checkHost(cmd.Context())...)
			}
			findings = append(findings, d.checkFleet(cmd.Context(), store)...)
			return d.reportFindings(findings)
		},
	}
	cmd.Flags().StringVar(&store, "store", "",
		"object store to probe (default: the fleet's, where this host can reach it)")
	cmd.Flags().BoolVar(&host, "host", true, "check this host too")
	return cmd
}

func (d *deps) reportFindings(findings []finding) error {
	broken := 0
	rows := make([][]string, 0, len(findings))
	for _, f := range findings {
		if f.Status == statusBroken {
			broken++
		}
		rows = append(rows, []string{f.Status, f.Check, f.Detail})
	}
	err := d.result(findings, func(w io.Writer) error {
		if err := printTable(w, []string{"STATUS", "CHECK", "DETAIL"}, rows); err != nil {
			return err
		}
		for _, f := range findings {
			if f.Status == statusBroken && f.Remedy != "" {
				fmt.Fprintf(w, "%s: try: %s\n", f.Check, f.Remedy)
			}
		}
		return nil
	})
	if err == nil && broken > 0 {
		return &codedError{code: exitFailed,
			err: fmt.Errorf("%d of %d checks found something broken", broken, len(findings))}
	}
	return err
}

// checkFleet checks the server, the workers and the store.
func (d *deps) checkFleet(ctx context.Context, store string) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	var findings []finding
	if d.dir == "" && d.env("SLUICE_DIR") == "" && d.env("SLUICE_URL") == "" {
		findings = append(findings, finding{Check: "server", Status: statusSkipped,
			Detail: "no fleet is named (--dir, SLUICE_DIR or SLUICE_URL)"})
	} else {
		c, err := d.client()
		if err != nil {
			return append(findings, found("server", "", err))
		}
		server, err := c.Server(ctx)
		if err != nil {
			return append(findings, found("server", "", err))
		}
		findings = append(findings, found("server", fmt.Sprintf("%s, fleet %s, version %s",
			c.BaseURL(), server.FleetID, server.Version), brakeError(server)))
		findings = append(findings, checkWorkers(ctx, c)...)
		if store == "" {
			store = server.StoreURL
		}
	}
	return append(findings, d.checkStore(ctx, store))
}

func brakeError(s api.Server) error {
	if s.Brake == "" {
		return nil
	}
	return errs.New(errs.Unavailable, "automatic actions are stopped: %s", s.Brake).
		WithRemedy("look at the workers that are down")
}

func checkWorkers(ctx context.Context, c *client.Client) []finding {
	workers, err := c.Workers(ctx)
	if err != nil {
		return []finding{found("workers", "", err)}
	}
	if len(workers) == 0 {
		return []finding{found("workers", "", errs.New(errs.NotFound,
			"the fleet has no workers").WithRemedy("start one: sluice worker --help"))}
	}
	var findings []finding
	for _, w := range workers {
		var err error
		switch {
		case w.State == "down" && !w.RevokedAt.IsZero():
			err = errs.New(errs.Unavailable, "worker was revoked at %s", timestamp(w.RevokedAt)).
				WithRemedy("to let it in again: sluice worker token create --name %s", w.ID)
		case w.State == "down":
			err = errs.New(errs.Unavailable, "worker is down; last seen %s",
				orDash(timestamp(w.LastSeen))).
				WithRemedy(
					"start its daemon; its machines are started elsewhere meanwhile: sluice worker show %s", w.ID)
		case len(w.Conditions) > 0:
			k := w.Conditions[0]
			err = errs.New(errs.Unavailable, "%s since %s: %s", k.Name,
				timestamp(k.Since), k.Message).
				WithRemedy("%s", remedyOf(w.ID, k))
		}
		detail := w.State
		if a := acceleration(w); a != "" {
			detail += ", VMs run by " + a
		}
		findings = append(findings, found("worker "+w.ID, detail, err))
	}
	return findings
}

// remedyOf returns what to do about a worker's condition.
func remedyOf(worker string, k api.Condition) string {
	empty := "if it stays so, empty it: sluice worker drain " + worker
	if k.Remedy == "" {
		return empty
	}
	return k.Remedy + "; " + empty
}

// checkStore probes a store that this process can open with the credentials it has.
func (d *deps) checkStore(ctx context.Context, url string) finding {
	const check = "store"
	if url == "" {
		return finding{Check: check, Status: statusSkipped, Detail: "no store is named (--store)"}
	}
	store, err := blobs.Open(ctx, url)
	if err != nil {
		return found(check, "", err)
	}
	defer store.Close()
	err = blobs.Probe(ctx, store, url)
	if blobs.LacksCredentials(err) {
		return finding{Check: check, Status: statusSkipped,
			Detail: url +
				": no credentials here (AWS_ACCESS_KEY_ID or a profile); the server probes it when it starts"}
	}
	return found(check, url+": conditional writes work", err)
}
