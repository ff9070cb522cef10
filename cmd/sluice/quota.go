package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newQuotaCommand(d *deps) *cobra.Command {
	return newNoun("quota", "Bound what networks and apps may use, and see what they use",
		newQuotaSetCommand(d),
		newQuotaShowCommand(d),
		newQuotaListCommand(d),
		newQuotaClearCommand(d),
	)
}

// quotaTarget is whose quota a command is about.
type quotaTarget struct {
	app            string
	byDefault, all bool
}

func (q *quotaTarget) add(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&q.app, "app", "", "only that app of the network")
	cmd.Flags().BoolVar(&q.byDefault, "default", false,
		"each network, as far as it has no limit of its own")
	cmd.Flags().BoolVar(&q.all, "fleet", false, "the whole fleet, which has quotas of images")
	return cmd
}

// args takes a network, or none if a flag says what else is meant.
func (q *quotaTarget) args(cmd *cobra.Command, args []string) error {
	if q.byDefault || q.all {
		if q.app != "" || q.byDefault && q.all {
			return usageError("%s takes one of --app, --default and --fleet", cmd.CommandPath())
		}
		return exactly()(cmd, args)
	}
	return exactly("a network, --default or --fleet")(cmd, args)
}

func (q *quotaTarget) scope(args []string) fleet.QuotaScope {
	of := fleet.QuotaScope{Default: q.byDefault, App: fleet.AppName(q.app)}
	if len(args) > 0 {
		of.Network = fleet.NetworkName(args[0])
	}
	return of
}

const quotaSetHelp = `Bound what a network may use, or one of its apps. A limit that is given changes, the
others stay. Apps have their limits beside their network's; a network has those of
--default where it has none of its own.

  number, as 20   it may use so much
  unlimited       there is no bound, whatever --default says
  default         it has no limit of its own

Machines and their disks count while they exist. Processors and memory count while a
machine is meant to run, or still does. What would use more is refused; what is used
beyond a limit that was lowered stays, and doesn't grow. Moves, drains, failovers and
restarts are never refused. Of --fleet only images are bounded.
`

func newQuotaSetCommand(d *deps) *cobra.Command {
	var of quotaTarget
	var unknown newThings
	limits := map[fleet.Quantity]*string{}
	cmd := &cobra.Command{
		Use:   "set NETWORK [--app APP] | --default | --fleet",
		Short: "Set limits",
		Long:  quotaSetHelp + exitTable,
		Example: `  sluice quota set prod --machines 20 --cpus 16 --memory 64GiB --disk 1TiB
  sluice quota set prod --app shop --execs 8
  sluice quota set --default --machines 5
  sluice quota set prod --machines unlimited --cpus default`,
		Args: of.args,
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			change := map[string]*int64{}
			for q, text := range limits {
				if !cmd.Flags().Changed(q.Flag()) {
					continue
				}
				limit, err := parseLimit(q, *text)
				if err != nil {
					return err
				}
				change[string(q)] = limit
			}
			if len(change) == 0 {
				return usageError("%s needs a limit, as --machines 20", cmd.CommandPath())
			}
			scope := of.scope(args)
			if err := unknown.mustKnow(cmd.Context(), c,
				[2]string{string(scope.Network), string(scope.App)}); err != nil {
				return err
			}
			quota, err := c.SetQuota(cmd.Context(), scope.ID(), change)
			if err != nil {
				return err
			}
			return d.result(quota, func(w io.Writer) error { return printQuota(w, quota) })
		}),
	}
	for _, s := range []fleet.QuotaScope{{Default: true}, {}} {
		for _, q := range s.Quantities() {
			limits[q] = cmd.Flags().String(q.Flag(), "", limitHelp(q))
		}
	}
	unknown.add(cmd)
	return of.add(cmd)
}

func limitHelp(q fleet.Quantity) string {
	return map[fleet.Quantity]string{
		fleet.QuotaMachines: "machines", fleet.QuotaRunning: "machines that run",
		fleet.QuotaCPU:        "cores of machines that run",
		fleet.QuotaMemory:     "memory of machines that run; a bare number is in MiB",
		fleet.QuotaDisk:       "sizes of machines' disks; a bare number is in GiB",
		fleet.QuotaSecrets:    "secrets",
		fleet.QuotaExecs:      "commands that run at a time: sluice machine exec",
		fleet.QuotaLogs:       "streams of logs at a time: sluice machine logs",
		fleet.QuotaImages:     "with --fleet: images",
		fleet.QuotaImageBytes: "with --fleet: sizes of images' disks; a bare number is in GiB",
	}[q]
}

func newQuotaShowCommand(d *deps) *cobra.Command {
	var of quotaTarget
	cmd := &cobra.Command{
		Use:   "show NETWORK [--app APP] | --default | --fleet",
		Short: "Show the limits of a network, what it uses, and which of its apps uses it",
		Long: `Show the limits of a network, what it uses, and which of its apps uses it. A limit
that it has from --default is marked so.
` + exitTable,
		Example: `  sluice quota show prod
  sluice quota show prod --app shop`,
		Args: of.args,
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			scope := of.scope(args)
			quota, err := c.Quota(cmd.Context(), scope.ID())
			if err != nil {
				return err
			}
			if len(quota.Own) == 0 && len(quota.Used) == 0 { // or it is mistyped
				if err := (&newThings{}).mustKnow(cmd.Context(), c,
					[2]string{string(scope.Network), string(scope.App)}); err != nil {
					return err
				}
			}
			apps, err := appsOf(cmd, c, scope)
			if err != nil {
				return err
			}
			shown := shownQuota{Quota: quota, Apps: apps}
			return d.result(shown, func(w io.Writer) error {
				if err := printQuota(w, quota); err != nil || len(apps) == 0 {
					return err
				}
				fmt.Fprintln(w)
				return printUses(w, apps)
			})
		}),
	}
	return of.add(cmd)
}

// shownQuota is a network's quota with those of its apps.
type shownQuota struct {
	api.Quota

	Apps []api.Quota `json:"apps,omitempty"`
}

// appsOf returns the apps of a network; none for other scopes.
func appsOf(cmd *cobra.Command, c *client.Client, of fleet.QuotaScope) ([]api.Quota, error) {
	if of.Network == "" || of.App != "" {
		return nil, nil
	}
	all, err := c.Quotas(cmd.Context())
	return slices.DeleteFunc(all, func(q api.Quota) bool {
		return !strings.HasPrefix(q.ID, of.ID()+"/")
	}), err
}

func newQuotaListCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List what networks and apps use, with their limits",
		Long: `List what networks and apps use, with their limits: used/limit, and what is used alone
where there is no limit. Those are listed that you may see.
` + exitTable,
		Example: "  sluice quota list",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			all, err := c.Quotas(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(all, func(w io.Writer) error { return printUses(w, all) })
		}),
	}
}

func newQuotaClearCommand(d *deps) *cobra.Command {
	var of quotaTarget
	cmd := &cobra.Command{
		Use:     "clear NETWORK [--app APP] | --default | --fleet",
		Short:   "Take all limits away; those of --default count then",
		Long:    "Take all of its own limits away; a network has those of --default then." + exitTable,
		Example: "  sluice quota clear prod",
		Args:    of.args,
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return c.ClearQuota(cmd.Context(), of.scope(args).ID())
		}),
	}
	return of.add(cmd)
}

// printQuota prints one quota, a line for each thing that is bounded or used.
func printQuota(w io.Writer, q api.Quota) error {
	of := fleet.ScopeOfID(q.ID)
	if _, err := fmt.Fprintln(w, of); err != nil {
		return err
	}
	var rows [][]string
	for _, what := range of.Quantities() {
		limit := limitText(q, what)
		if of.Network != "" && of.App == "" && limit != "" {
			if _, own := q.Own[string(what)]; !own {
				limit += " (default)"
			}
		}
		rows = append(rows, []string{what.Flag(), amountText(what, q.Used[string(what)]),
			cmp.Or(limit, "unlimited")})
	}
	return printTable(w, []string{"WHAT", "USED", "LIMIT"}, rows)
}

// limitText returns a limit; "" if there is none.
func limitText(q api.Quota, what fleet.Quantity) string {
	limit, ok := q.Limits[string(what)]
	if !ok {
		return ""
	}
	return amountText(what, limit)
}

// printUses prints many quotas, a line for each.
func printUses(w io.Writer, all []api.Quota) error {
	header := []string{"NETWORK", "APP"}
	columns := fleet.QuotaScope{Default: true}.Quantities()
	if slices.ContainsFunc(all, func(q api.Quota) bool { return q.ID == "fleet" }) {
		columns = append(columns, fleet.QuotaScope{}.Quantities()...)
	}
	for _, q := range columns {
		header = append(header, strings.ToUpper(q.Flag()))
	}
	rows := make([][]string, 0, len(all))
	for _, q := range all {
		of := fleet.ScopeOfID(q.ID)
		row := []string{string(of.Network), string(of.App)}
		if of.Network == "" {
			row[0] = "(" + q.ID + ")"
		}
		for _, what := range columns {
			row = append(row, useText(q, of, what))
		}
		rows = append(rows, row)
	}
	return printTable(w, header, rows)
}

// useText is what is used of one thing, with its limit.
func useText(q api.Quota, of fleet.QuotaScope, what fleet.Quantity) string {
	limit := limitText(q, what)
	switch {
	case !slices.Contains(of.Quantities(), what):
		return ""
	case of.Default:
		return limit
	case limit == "":
		return amountText(what, q.Used[string(what)])
	}
	return amountText(what, q.Used[string(what)]) + "/" + limit
}

// amountText is an amount as the command line takes it.
func amountText(what fleet.Quantity, n int64) string {
	switch {
	case n == fleet.Unlimited:
		return "unlimited"
	case what == fleet.QuotaCPU:
		return cores(float64(n) / 1000)
	case what == fleet.QuotaMemory:
		return strings.ReplaceAll(byteCount(n<<20), " ", "")
	case what == fleet.QuotaDisk || what == fleet.QuotaImageBytes:
		return strings.ReplaceAll(byteCount(n), " ", "")
	}
	return strconv.FormatInt(n, 10)
}

// parseLimit reads a limit; nil takes it away.
func parseLimit(q fleet.Quantity, text string) (*int64, error) {
	n := int64(fleet.Unlimited)
	var err error
	switch text {
	case "default":
		return nil, nil
	case "unlimited":
		return &n, nil
	case "0":
		n = 0
		return &n, nil
	}
	switch q {
	case fleet.QuotaCPU:
		var f float64
		f, err = strconv.ParseFloat(text, 64)
		if n = int64(math.Round(f * 1000)); err == nil && (n < 1 || f > 1e9) {
			err = strconv.ErrRange
		}
	case fleet.QuotaMemory:
		if n, err = bytesize.Parse(text, 1<<20); err == nil && n%(1<<20) != 0 {
			err = errs.New(errs.Invalid, "%s is not a whole number of MiB", text)
		}
		n >>= 20
	case fleet.QuotaDisk, fleet.QuotaImageBytes:
		n, err = bytesize.Parse(text, 1<<30)
	default:
		if n, err = strconv.ParseInt(text, 10, 64); err == nil && n < 0 {
			err = strconv.ErrRange
		}
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "--%s %q is no limit", q.Flag(), text).
			WithRemedy("give a number or a size, unlimited, or default")
	}
	return &n, nil
}
