package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// line is one line of the spool: a call that begins, or one that has ended.
type line struct {
	Begun *Entry `json:"begun,omitempty"`
	Ended *Entry `json:"ended,omitempty"`
}

// spool is the files that are not in the chain yet: segments, of which the last one is written to.
// It is used by one goroutine at a time.
type spool struct {
	dir    string
	number int64 // of the segment that is written to
	file   *os.File
	size   int64            // of it
	ended  int64            // bytes of ended calls in it
	open   map[string]Entry // calls that have begun and not ended
	sizes  map[int64]int64  // of the segments before it, by number
}

const segmentPrefix = "spool-"

func (s *spool) path(number int64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s%020d", segmentPrefix, number))
}

// openSpool goes on with the spool in a directory. Calls that were under way when it was left are
// ended with a note.
func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the audit log's spool: %w", err)
	}
	s := &spool{dir: dir, open: map[string]Entry{}, sizes: map[int64]int64{}}
	numbers, err := s.numbers()
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return s, s.next(1)
	}
	for _, n := range numbers {
		info, err := os.Stat(s.path(n))
		if err != nil {
			return nil, fmt.Errorf("read the audit log's spool: %w", err)
		}
		s.sizes[n] = info.Size()
	}
	return s, s.resume(numbers[len(numbers)-1])
}

func (s *spool) numbers() ([]int64, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the audit log's spool: %w", err)
	}
	var all []int64
	for _, f := range files {
		var n int64
		name, ok := strings.CutPrefix(f.Name(), segmentPrefix)
		if _, err := fmt.Sscanf(name, "%020d", &n); ok && err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// resume goes on with the last segment of an earlier process. A line that was cut is dropped: who
// wrote it was told of nothing yet.
func (s *spool) resume(number int64) error {
	lines, whole, err := readSegment(s.path(number))
	if err != nil {
		return err
	}
	s.number, s.size = number, whole
	delete(s.sizes, number)
	if s.file, err = os.OpenFile(s.path(number), os.O_WRONLY, 0o600); err == nil {
		err = s.file.Truncate(whole)
	}
	if err != nil {
		return fmt.Errorf("go on with the audit log's spool: %w", err)
	}
	for _, l := range lines {
		s.note(l)
		if l.Ended != nil {
			s.ended++
		}
	}
	var left []line
	for _, e := range s.open {
		e.Note = interrupted
		left = append(left, line{Ended: &e})
	}
	slices.SortFunc(left, func(a, b line) int {
		return strings.Compare(a.Ended.RequestID, b.Ended.RequestID)
	})
	return s.write(left)
}

// note keeps count of the calls that are under way.
func (s *spool) note(l line) {
	switch {
	case l.Begun != nil:
		s.open[l.Begun.RequestID] = *l.Begun
	case l.Ended != nil:
		delete(s.open, l.Ended.RequestID)
	}
}

// write appends lines, and returns once they are durable. After an error none of them counts, and
// the spool is as it was.
func (s *spool) write(lines []line) error {
	if len(lines) == 0 {
		return nil
	}
	var text bytes.Buffer
	ended := int64(0)
	for _, l := range lines {
		data, err := json.Marshal(l)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "encode an entry of the audit log")
		}
		text.Write(append(data, '\n'))
		if l.Ended != nil {
			ended += int64(len(data))
		}
	}
	_, err := s.file.WriteAt(text.Bytes(), s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, errors.Join(err, s.file.Truncate(s.size)),
			"write the audit log's spool").
			WithRemedy("make room on, or repair, the disk with the server's --data")
	}
	s.size += int64(text.Len())
	s.ended += ended
	for _, l := range lines {
		s.note(l)
	}
	return nil
}

// cut ends the segment and begins the next, which knows the calls that are under way. Nothing is
// cut where no call has ended.
func (s *spool) cut() error {
	if s.ended == 0 {
		return nil
	}
	return s.next(s.number + 1)
}

// next begins a segment, whole or not at all.
func (s *spool) next(number int64) error {
	var text bytes.Buffer
	for _, e := range s.open {
		data, err := json.Marshal(line{Begun: &e})
		if err != nil {
			return errs.Wrap(errs.Internal, err, "encode an entry of the audit log")
		}
		text.Write(append(data, '\n'))
	}
	if err := atomicfile.Write(s.path(number), text.Bytes(), 0o600); err != nil {
		return errs.Wrap(errs.Unavailable, err, "begin a segment of the audit log's spool")
	}
	f, err := os.OpenFile(s.path(number), os.O_WRONLY, 0o600)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "begin a segment of the audit log's spool")
	}
	if s.file != nil {
		s.sizes[s.number] = s.size
		_ = s.file.Close() // it was synced
	}
	s.file, s.number, s.size, s.ended = f, number, int64(text.Len()), 0
	return nil
}

// oldest returns the number of the first segment that has ended; 0: there is none.
func (s *spool) oldest() int64 {
	first := int64(0)
	for n := range s.sizes {
		if first == 0 || n < first {
			first = n
		}
	}
	return first
}

// total is the size of all segments.
func (s *spool) total() int64 {
	sum := s.size
	for _, size := range s.sizes {
		sum += size
	}
	return sum
}

// drop removes a segment that is in the chain.
func (s *spool) drop(number int64) error {
	if err := os.Remove(s.path(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a segment of the audit log's spool: %w", err)
	}
	delete(s.sizes, number)
	return nil
}

// readSegment returns a segment's lines, and how many bytes they are; a cut one at its end is left
// out.
func readSegment(path string) (lines []line, whole int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read the audit log's spool: %w", err)
	}
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		var l line
		if end < 0 || json.Unmarshal(data[:end], &l) != nil {
			if bytes.IndexByte(data[end+1:], '\n') >= 0 && end >= 0 {
				return nil, 0, errs.New(errs.Corrupt,
					"%s is damaged at byte %d: lines follow one that can't be read", path, whole).
					WithRemedy("keep a copy of it; then remove what follows that byte")
			}
			return lines, whole, nil
		}
		lines = append(lines, l)
		whole += int64(end) + 1
		data = data[end+1:]
	}
	return lines, whole, nil
}
