package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/sluice-platform/sluice/api"
)

// printDrain writes a drain's moves and its result.
func printDrain(w io.Writer, x api.Drain) error {
	if len(x.Moves) > 0 {
		if err := printMoves(w, x.Moves); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	workers := strings.Join(x.Workers, ", ")
	fmt.Fprintf(w, "drain %s of %s: %s, %d of %d machines moved", x.ID, workers, x.State,
		x.Moved, x.Total)
	if !x.FinishedAt.IsZero() {
		fmt.Fprintf(w, " in %.1f s", x.FinishedAt.Sub(x.StartedAt).Seconds())
	}
	fmt.Fprintln(w)
	if x.State == "drained" {
		fmt.Fprintf(w, "%s: safe to power off\n", workers)
		fmt.Fprintf(w, "to give them machines again: sluice worker uncordon %s\n",
			strings.Join(x.Workers, " "))
	}
	for _, b := range x.Blockers {
		printBlocker(w, b)
	}
	return nil
}

func printBlocker(w io.Writer, b api.Blocker) {
	fmt.Fprintf(w, "blocked: %s: %s (%s, since %s)\n", b.Object, b.Detail, b.Code,
		timestamp(b.Since))
	if b.Remedy != "" {
		fmt.Fprintf(w, "  try: %s\n", b.Remedy)
	}
}

// printMoves is the result table of drains and moves.
func printMoves(w io.Writer, moves []api.Move) error {
	rows := make([][]string, 0, len(moves))
	for _, m := range moves {
		pause := ""
		if m.PauseMS > 0 {
			pause = fmt.Sprintf("%.0f", m.PauseMS)
		}
		rows = append(rows, []string{m.MachineName, m.Machine, m.From + " → " + orDash(m.To), pause,
			fmt.Sprint(m.DiskBytesCopied), moveText(m)})
	}
	return printTable(w, []string{"MACHINE", "ID", "FROM → TO", "PAUSE MS", "DISK BYTES COPIED",
		"RESULT"}, rows)
}

func moveText(m api.Move) string {
	text := m.Step
	switch {
	case m.Step == "done":
		text = "moved"
	case m.Step == "undone":
		text = "undone: on " + m.From
	case m.Blocker != nil:
		text = m.Step + ", blocked: " + m.Blocker.Code
	}
	if m.Error != "" {
		text += " (" + m.Error + ")"
	}
	return text
}

// drainProgress shows a drain while it goes on.
type drainProgress interface {
	show(x api.Drain) error
	end()
}

// newDrainProgress redraws a table on a terminal, and writes one line per step elsewhere. Where the
// result follows as soon as the drain stays blocked, blockers are left to that.
func (d *deps) newDrainProgress(resultFollows bool) drainProgress {
	if f := terminal(d.stderr); f != nil && d.env("TERM") != "dumb" {
		return &drainTable{w: d.stderr, file: f}
	}
	return &drainLines{w: d.stderr, steps: map[string]int{}, said: map[string]bool{},
		resultFollows: resultFollows}
}

// drainLines writes a line for each step of each move, and for each new blocker.
type drainLines struct {
	w             io.Writer
	steps         map[string]int  // of each move, how many were written
	said          map[string]bool // blockers written
	resultFollows bool
}

func (p *drainLines) show(x api.Drain) error {
	for _, m := range x.Moves {
		for _, s := range m.Steps[min(p.steps[m.ID], len(m.Steps)):] {
			note := ""
			if s.Note != "" {
				note = "  " + s.Note
			}
			if _, err := fmt.Fprintf(p.w, "%s  %s  %s → %s  %s%s\n", s.At.Format("15:04:05.000"),
				m.MachineName, m.From, orDash(m.To), s.Step, note); err != nil {
				return err
			}
		}
		p.steps[m.ID] = len(m.Steps)
	}
	for _, b := range x.Blockers {
		// Not again: only its detail has changed, which it does with every move.
		key := b.Code + " " + b.Object
		if p.said[key] || p.resultFollows && x.State == "blocked" {
			continue
		}
		p.said[key] = true
		printBlocker(p.w, b)
	}
	return nil
}

func (p *drainLines) end() {}

// drainTable redraws the drain in place. It is erased at the end, because the result follows.
type drainTable struct {
	w     io.Writer
	file  *os.File
	lines int
}

func (p *drainTable) show(x api.Drain) error {
	width, height, err := term.GetSize(int(p.file.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	var out strings.Builder
	fmt.Fprintf(&out, "drain of %s: %s, %d of %d machines moved\n", strings.Join(x.Workers, ", "),
		x.State, x.Moved, x.Total)
	if err := printMoves(&out, unfinishedFirst(x.Moves, height-6)); err != nil {
		return err
	}
	for _, b := range x.Blockers {
		printBlocker(&out, b)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	lines = lines[:min(len(lines), max(height-1, 1))]
	p.end()
	for _, l := range lines {
		if r := []rune(l); len(r) > width {
			l = string(r[:width])
		}
		if _, err := fmt.Fprintln(p.w, l); err != nil {
			return err
		}
	}
	p.lines = len(lines)
	return nil
}

// unfinishedFirst puts unfinished moves first, for a terminal on which not all fit.
func unfinishedFirst(moves []api.Move, room int) []api.Move {
	if len(moves) <= room {
		return moves
	}
	var going, ended []api.Move
	for _, m := range moves {
		if m.FinishedAt.IsZero() {
			going = append(going, m)
		} else {
			ended = append(ended, m)
		}
	}
	return append(going, ended...)[:max(room, 1)]
}

// end erases the table.
func (p *drainTable) end() {
	if p.lines > 0 {
		fmt.Fprintf(p.w, "\x1b[%dA\x1b[J", p.lines)
	}
	p.lines = 0
}
