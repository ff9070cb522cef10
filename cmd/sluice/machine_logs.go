package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

const defaultTail = 200

func newMachineLogsCommand(d *deps) *cobra.Command {
	var o client.LogOptions
	var tail, since string
	cmd := &cobra.Command{
		Use:   "logs MACHINE",
		Short: "Print what a machine's services wrote",
		Long: `Print what a machine's services wrote, and why one can't be started. Each line
begins with its time, the service, and stdout, stderr or sluice, which is the
platform itself.

A log is of the VM that the machine runs in, and doesn't move with it. Following
goes on where the machine is next, from the first line that was written there, and
says so. It ends when the machine is stopped or destroyed, or has failed. A
connection that was lost is made anew; no line is shown twice.
` + exitTable,
		Example: "  sluice machine logs web-1\n  sluice machine logs web-1 --service web --tail 20 --follow\n  sluice machine logs web-1 --since 10m",
		Args:    exactly("a machine"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			l := &machineLog{d: d, c: c, ref: args[0], o: o, seen: map[string]mark{}}
			var err error
			if l.since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			if err := l.begin(tail, l.since != "" && !cmd.Flags().Changed("tail")); err != nil {
				return err
			}
			if o.Follow {
				return l.follow(cmd.Context())
			}
			return l.print(cmd.Context())
		}),
	}
	cmd.Flags().StringVar(&o.Service, "service", "", "only this service")
	cmd.Flags().StringVarP(&tail, "tail", "n", strconv.Itoa(defaultTail),
		"how many of the newest lines, or all (of --since: all)")
	cmd.Flags().StringVar(&since, "since", "",
		"only lines since then: 10m, or a time like 2026-01-31T12:00:00Z")
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false,
		"go on with new lines as they come, also where the machine moves to")
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "lines" { // its name in earlier versions
			name = "tail"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

// logTime is how a line's time is written: times in this form sort as strings.
const logTime = "2006-01-02T15:04:05.000000Z"

// parseSince turns a duration or a time into the form that the lines have; "" stays so.
func parseSince(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago).UTC().Format(logTime), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return "",
			usageError(
				"--since %q is neither a duration like 10m or 1h30m nor a time like 2026-01-31T12:00:00Z", s)
	}
	return t.UTC().Format(logTime), nil
}

// machineLog prints the log of a machine.
type machineLog struct {
	d     *deps
	c     *client.Client
	ref   string
	o     client.LogOptions
	since string // lines of an earlier time aren't printed

	machine  api.Machine // when the log was joined last
	instance string      // whose log it is
	seen     map[string]mark
	floor    string // the earliest time of a line of this instance's that came
	printed  int
	wait     time.Duration // until the next try to go on
	told     bool          // what it waits for
}

// begin sets with how many lines it begins.
func (l *machineLog) begin(tail string, all bool) error {
	n, err := strconv.Atoi(tail)
	switch {
	case all || tail == "all":
		n = -1
	case err != nil || n < -1:
		return usageError("--tail %s is neither a number of lines nor all", tail)
	}
	l.o.Lines, l.o.OnlyNew = n, n == 0
	return nil
}

// print prints what there is.
func (l *machineLog) print(ctx context.Context) error {
	if l.o.OnlyNew {
		_, err := l.c.Machine(ctx, l.ref) // none of its lines, if it is there
		return err
	}
	logs, err := l.c.Logs(ctx, l.ref, l.o)
	if err != nil {
		return err
	}
	defer logs.Close()
	part, err := l.copy(logs, false)
	if err == nil && part != "" {
		err = l.line(part)
	}
	if err == nil && l.printed == 0 {
		l.sayEmpty(ctx)
	}
	return err
}

// copy prints lines as they come, until the log ends. A line that was broken off is returned.
// again: what was printed already comes once more.
func (l *machineLog) copy(logs io.Reader, again bool) (part string, err error) {
	lines := bufio.NewReader(logs)
	marks := l.seen
	if again {
		l.seen = map[string]mark{}
	}
	for {
		line, err := lines.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF):
			l.keep(marks)
			return line, nil
		case err != nil:
			l.keep(marks)
			return line, &brokenLog{err}
		}
		if !l.isNew(line, marks, again) {
			continue
		}
		if err := l.line(line); err != nil {
			return "", err
		}
	}
}

// brokenLog is an error of the connection, as opposed to one of our output.
type brokenLog struct{ error }

func (e *brokenLog) Unwrap() error { return e.error }

// mark says how far a stream of a service has been printed: all lines before a time, and some with
// that time.
type mark struct {
	time  string
	lines int
}

// isNew notes a line, and reports whether it is one to print: not older than it may be, and not
// printed before.
func (l *machineLog) isNew(line string, marks map[string]mark, again bool) bool {
	at, rest, _ := strings.Cut(line, " ")
	service, rest, _ := strings.Cut(rest, " ")
	stream, _, _ := strings.Cut(rest, " ")
	key := service + " " + stream
	now := l.seen[key]
	if now.time != at {
		now = mark{time: at}
	}
	now.lines++
	l.seen[key] = now
	if !again && (l.floor == "" || at < l.floor) {
		l.floor = at
	}
	if at < l.since || at < l.floor {
		return false
	}
	was := marks[key]
	return !again || at > was.time || at == was.time && now.lines > was.lines
}

// keep goes back to earlier marks of those streams that haven't got so far again.
func (l *machineLog) keep(marks map[string]mark) {
	for key, was := range marks {
		if now := l.seen[key]; now.time < was.time || now.time == was.time &&
			now.lines < was.lines {
			l.seen[key] = was
		}
	}
}

// line prints one; with --json it is an object.
func (l *machineLog) line(line string) error {
	l.printed++
	if l.d.json {
		return l.d.printJSONLine(map[string]string{"line": strings.TrimSuffix(line, "\n")})
	}
	_, err := io.WriteString(l.d.stdout, line)
	return err
}

// sayEmpty prints why a log is empty, unless the machine has just written nothing.
func (l *machineLog) sayEmpty(ctx context.Context) {
	m, err := l.c.Machine(ctx, l.ref)
	if err != nil {
		return // it was an extra; the log itself was read
	}
	l.sayNoServices(m)
	for _, s := range m.Services {
		if s.Error != "" && s.State != "ready" && (l.o.Service == "" || l.o.Service == s.Name) {
			fmt.Fprintf(l.d.stderr, "service %s is %s: %s; see: sluice machine status %s\n", s.Name,
				s.State, s.Error, l.ref)
		}
	}
}

func (l *machineLog) sayNoServices(m api.Machine) {
	if len(m.Config.Services) == 0 {
		fmt.Fprintf(l.d.stderr,
			"machine %s has no services, and only what these write is kept; give it some by: sluice machine create --service\n", m.Name)
	}
}
