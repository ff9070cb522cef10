// Package attempts is what an attacker tries from a foothold, as a table: each attempt with the
// errors that refuse it. The program test/guest/attack makes them inside, a test outside compares.
//
// Invariants: an attempt that succeeds harms nobody: it undoes what it did, or is made with an
// argument that a kernel which lets it pass refuses. None sends anything on a socket, and none
// writes a setting of the host.
package attempts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Attempt is something that must be refused.
type Attempt struct {
	Name string
	Want []unix.Errno // any of them refuses it
	Do   func() error
}

// Outcome is what came of an attempt.
type Outcome struct {
	Name  string
	Errno unix.Errno // 0: it succeeded
	Want  []unix.Errno
}

// Refused reports whether the attempt was refused, and for the reason that it should be.
func (o Outcome) Refused() bool { return slices.Contains(o.Want, o.Errno) }

func (o Outcome) String() string {
	if o.Errno == 0 {
		return o.Name + ": it succeeded"
	}
	return fmt.Sprintf("%s: %s, want one of %v", o.Name, unix.ErrnoName(o.Errno), o.Want)
}

// UserCode is the foothold of root in a machine.
const UserCode = "user-code"

// Of returns the attempts of a foothold; none of one that isn't known.
func Of(foothold string) []Attempt {
	if foothold != UserCode {
		return nil
	}
	all := slices.Concat(mounts(), namespaces(), others(), wholeKernel(), sockets(), files(),
		limits(), facts())
	if runtime.GOARCH == "amd64" {
		all = append(all, of32Bits()...)
	}
	return all
}

// Make makes all attempts, and writes a line for each: its name, a tab, and the error's number.
func Make(w io.Writer, all []Attempt) error {
	for _, a := range all {
		err := a.Do()
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
		if _, err := fmt.Fprintf(w, "%s\t%d\n", a.Name, errno); err != nil {
			return err
		}
	}
	return nil
}

// Read reads what Make has written, and matches it with the table. An attempt that was not made is
// an error: a suite that ends early has shown nothing.
func Read(text string, all []Attempt) ([]Outcome, error) {
	made := map[string]unix.Errno{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, number, _ := strings.Cut(lines.Text(), "\t")
		errno, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		made[name] = unix.Errno(errno) //nolint:gosec // as Make has written it
	}
	outcomes := make([]Outcome, 0, len(all))
	for _, a := range all {
		errno, ok := made[a.Name]
		if !ok {
			return nil, fmt.Errorf("%q was not attempted: %q", a.Name, text)
		}
		outcomes = append(outcomes, Outcome{Name: a.Name, Errno: errno, Want: a.Want})
	}
	return outcomes, nil
}

// Unrefused returns the attempts that weren't refused as they should be.
func Unrefused(outcomes []Outcome) []Outcome {
	return slices.DeleteFunc(slices.Clone(outcomes), Outcome.Refused)
}

// call is an attempt that consists of one system call.
func call(name string, want unix.Errno, number uintptr, args ...uintptr) Attempt {
	return Attempt{Name: name, Want: []unix.Errno{want}, Do: func() error {
		_, err := raw(number, args...)
		return err
	}}
}

func raw(number uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}
