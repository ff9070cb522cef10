package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// licences tells the texts of licences that what ships may have, by words that only they have. Each
// lets a program under Apache-2.0 contain the code, with nothing to do but name its authors.
func licences() map[string]*regexp.Regexp {
	return map[string]*regexp.Regexp{
		"Apache-2.0": regexp.MustCompile(`(?i)apache license\s+version 2\.0`),
		"MIT": regexp.MustCompile(`(?i)permission is hereby granted, free of charge, to any person ` +
			`obtaining a copy`),
		"BSD": regexp.MustCompile(`(?i)redistribution and use in source and binary forms, with or ` +
			`without modification, are permitted`),
		"Unlicense": regexp.MustCompile(`(?i)free and unencumbered software released into the ` +
			`public domain`),
		"ISC": regexp.MustCompile(`(?i)permission to use, copy, modify,? and(/or)? distribute this ` +
			`software for any purpose`),
	}
}

// unfit matches what no licence of ours has; a file may have several texts.
var unfit = regexp.MustCompile(`(?i)gnu (affero |lesser )?general public|business source license|` +
	`server side public|commons clause|elastic license|mozilla public`)

// licenceOf names the licences in a text; none, if there is one that isn't fit.
func licenceOf(text string) (found []string) {
	text = strings.Join(strings.Fields(text), " ")
	if unfit.MatchString(text) {
		return nil
	}
	for name, words := range licences() {
		if words.MatchString(text) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// TestLicencesOfWhatShips reads the licence of each module whose code is in our programs.
func TestLicencesOfWhatShips(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Dir}}{{end}}{{end}}", "./cmd/...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if path, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			modules[path] = dir
		}
	}
	if len(modules) < 50 {
		t.Fatalf("only %d modules: %v", len(modules), modules)
	}
	counts := map[string]int{}
	for path, dir := range modules {
		found := licencesIn(t, dir)
		if len(found) == 0 {
			t.Errorf("%s: no licence that what ships may have, in %s", path, dir)
		}
		counts[strings.Join(found, "+")]++
	}
	t.Logf("%d modules: %v", len(modules), counts)
}

func licencesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.ToUpper(filepath.Base(f))
		if !strings.HasPrefix(strings.TrimPrefix(name, "UN"), "LICEN") &&
			!strings.HasPrefix(name, "COPYING") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a directory
		}
		found = append(found, licenceOf(string(text))...)
	}
	return found
}

// TestLicencesAreTold: the texts that must not ship are told from those that may.
func TestLicencesAreTold(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"Apache License\n   Version 2.0, January 2004", "Apache-2.0"},
		{"Permission is hereby granted, free of charge, to any person\nobtaining a copy", "MIT"},
		{"GNU AFFERO GENERAL PUBLIC LICENSE Version 3", ""},
		{"Business Source License 1.1 ... Apache License Version 2.0", ""},
		{"All rights reserved.", ""},
	} {
		if got := strings.Join(licenceOf(c.text), "+"); got != c.want {
			t.Errorf("%q is %q, not %q", c.text, got, c.want)
		}
	}
}
