// Command ledger is the writer that tests run inside machines: it appends numbered, checksummed
// records to a file, fsyncs each, and only then acknowledges its number. After any crash or move
// every acknowledged record must be there.
//
//	ledger FILE [INTERVAL]    append a record each INTERVAL (default 2ms) and serve HTTP on :8080
//	ledger verify FILE        check the file, print the number of its last record
//
// HTTP: GET /acked → the last acknowledged number; GET /append → append one now, answer its number;
// GET /verify → check the file on disk, answer its last number.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// recordSize is one record: number (8 bytes), filler derived from it, CRC32C of all that (4 bytes).
const recordSize = 512

type ledger struct {
	mu   sync.Mutex
	file *os.File
	last uint64 // acknowledged
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "verify" {
		last, _, err := check(args[1])
		fmt.Println(last)
		return err
	}
	if len(args) < 1 {
		return errors.New("usage: ledger FILE [INTERVAL] | ledger verify FILE")
	}
	interval := 2 * time.Millisecond
	if len(args) > 1 {
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		interval = d
	}
	l, err := open(args[0])
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- l.serve(args[0]) }()
	go func() {
		for {
			if _, err := l.append(); err != nil {
				failed <- err
				return
			}
			time.Sleep(interval)
		}
	}()
	return <-failed
}

// open checks the file and cuts a torn record off its end: it was never acknowledged.
func open(path string) (*ledger, error) {
	last, end, err := check(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(end); err != nil {
		return nil, err
	}
	if _, err := f.Seek(end, io.SeekStart); err != nil {
		return nil, err
	}
	return &ledger{file: f, last: last}, nil
}

func (l *ledger) append() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.last + 1
	if _, err := l.file.Write(record(n)); err != nil {
		return 0, err
	}
	if err := l.file.Sync(); err != nil {
		return 0, err
	}
	l.last = n
	return n, nil
}

func (l *ledger) acked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *ledger) serve(path string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/acked", func(w http.ResponseWriter,
		_ *http.Request) {
		fmt.Fprintln(w, l.acked())
	})
	mux.HandleFunc("/append", func(w http.ResponseWriter, _ *http.Request) {
		n, err := l.append()
		answer(w, n, err)
	})
	mux.HandleFunc("/verify", func(w http.ResponseWriter, _ *http.Request) {
		n, _, err := check(path)
		answer(w, n, err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ledger") })
	return (&http.Server{Addr: ":8080", Handler: mux,
		ReadHeaderTimeout: 5 * time.Second}).ListenAndServe()
}

func answer(w http.ResponseWriter, n uint64, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, n)
}

func record(n uint64) []byte {
	b := make([]byte, recordSize)
	for i := 0; i+8 <= recordSize; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], n)
	}
	binary.LittleEndian.PutUint32(b[recordSize-4:],
		crc32.Checksum(b[:recordSize-4], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// check reads the file and returns its last number and where its records end. A bad record is an
// error, unless nothing valid follows it: then it is the torn, unacknowledged end.
func check(path string) (last uint64, end int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	buf := make([]byte, recordSize)
	for {
		_, err := io.ReadFull(f, buf)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return last, end, nil
		}
		if err != nil {
			return last, end, err
		}
		if string(buf) != string(record(last+1)) {
			return last, end, tornOrCorrupt(f, last)
		}
		last++
		end += recordSize
	}
}

// tornOrCorrupt tells a torn end from damage: after a torn end there are no valid records.
func tornOrCorrupt(f *os.File, last uint64) error {
	buf := make([]byte, recordSize)
	for {
		if _, err := io.ReadFull(f, buf); err != nil {
			return nil
		}
		sum := crc32.Checksum(buf[:recordSize-4], crc32.MakeTable(crc32.Castagnoli))
		if n := binary.LittleEndian.Uint64(buf); n > last &&
			sum == binary.LittleEndian.Uint32(buf[recordSize-4:]) {
			return fmt.Errorf("record %d is damaged, yet record %d follows it", last+1, n)
		}
	}
}
