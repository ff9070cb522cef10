package lint

import (
	"bufio"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxColumns = 100
	tabColumns = 4
	// longLiteral is how long a literal is that makes its line as wide as it has to be: whoever
	// sees a text finds it by searching for it.
	longLiteral = 60
)

// TestLinesAreNarrow holds lines to maxColumns. Lines of raw strings, and those with a long
// literal, may be wider.
func TestLinesAreNarrow(t *testing.T) {
	for _, s := range tree(t) {
		text, err := os.ReadFile(filepath.Join(root, s.path))
		if err != nil {
			t.Fatal(err)
		}
		excused := literalLines(text)
		lines := bufio.NewScanner(strings.NewReader(string(text)))
		for n := 1; lines.Scan(); n++ {
			if w := columns(lines.Text()); w > maxColumns && !excused[n] {
				t.Errorf("%s:%d: %d columns, at most %d", s.path, n, w, maxColumns)
			}
		}
	}
}

// literalLines are the lines of literals that are long, or that go over several lines.
func literalLines(text []byte) map[int]bool {
	lines := map[int]bool{}
	file := token.NewFileSet().AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return lines
		}
		more := strings.Count(literal, "\n")
		if tok != token.STRING || more == 0 && columns(literal) < longLiteral {
			continue
		}
		for n := range more + 1 {
			lines[file.Line(pos)+n] = true
		}
	}
}

func columns(line string) int {
	return utf8.RuneCountInString(line) + (tabColumns-1)*strings.Count(line, "\t")
}
