package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printJSON writes one result for programs.
func (d *deps) printJSON(v any) error {
	enc := json.NewEncoder(d.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printJSONLine writes one of many results, on a line of its own.
func (d *deps) printJSONLine(v any) error {
	enc := json.NewEncoder(d.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// result prints v as JSON where that was asked for, and else by text.
func (d *deps) result(v any, text func(w io.Writer) error) error {
	if d.json {
		return d.printJSON(v)
	}
	return text(d.stdout)
}

// printTable writes aligned columns. Empty cells become a dash, so that columns can be cut.
func printTable(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = orDash(c)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// printFields writes "  name = value" lines, aligned.
func printFields(w io.Writer, fields [][2]string) error {
	width := 0
	for _, f := range fields {
		width = max(width, len(f[0]))
	}
	for _, f := range fields {
		if _, err := fmt.Fprintf(w, "  %-*s = %s\n", width, f[0], orDash(f[1])); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// timestamp is RFC 3339 with milliseconds and offset.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}

// byteCount is a size for people, with binary units.
func byteCount(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, u := float64(n), 0
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	if u == 0 || f == float64(int64(f)) {
		return fmt.Sprintf("%d %s", int64(f), units[u])
	}
	return fmt.Sprintf("%.1f %s", f, units[u])
}

func cores(n float64) string { return strings.TrimSuffix(fmt.Sprintf("%g", n), ".0") }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
