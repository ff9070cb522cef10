// Package innerapi is the protocol between platformd and the PID 1 of the inner container: one
// SEQPACKET connection per conversation, one JSON message per packet, with descriptors beside it.
//
// The listening socket is made outside and inherited, so its name isn't visible inside the
// container and only the platform can connect. Answers aren't trusted: a container that has taken
// over its own PID 1 can lie about its own processes, but reaches nothing else by that.
//
// Invariants: a process id (ID) is started at most once; a process started with Keep outlives the
// connection and its exit is remembered until Forget; any other process is hung up on when its
// connection ends, and killed shortly after.
package innerapi

import "github.com/sluice-platform/sluice/internal/x/errs"

// ListenFD is the descriptor on which the container's PID 1 finds its listening socket.
const ListenFD = 3

// SyncFD is the descriptor on which it finds the listener for the container's calls of sync.
const SyncFD = 4

// MaxMessage is the largest message, in bytes; a larger one is Invalid.
const MaxMessage = 768 << 10

// Op is the operation of a conversation. Its first message sets it.
type Op string

// Ops.
const (
	OpPing   Op = "ping"   // → Answer
	OpStart  Op = "start"  // three descriptors (or none with TTY) → Answer, then Answer with Exit
	OpWatch  Op = "watch"  // of a process by ID → Answer, then Answer with Exit
	OpList   Op = "list"   // → Answer with Processes
	OpForget Op = "forget" // a kept process that has exited → Answer
	OpSignal Op = "signal" // within a start or watch conversation; no answer
)

// Request is a message to PID 1.
type Request struct {
	Op    Op     `json:"op"`
	ID    string `json:"id,omitempty"`
	Start *Start `json:"start,omitempty"`
	// Signal goes to the process's group, so that a shell's children get it too.
	Signal int `json:"signal,omitempty"`
}

// Start says what to run.
type Start struct {
	Args []string `json:"args"`
	Env  []string `json:"env"` // whole environment, as K=V
	Dir  string   `json:"dir"` // "" is /
	// User is a name or a number of the container, optionally with :group; "" is root.
	User string `json:"user,omitempty"`
	TTY  bool   `json:"tty,omitempty"`
	Rows uint16 `json:"rows,omitempty"`
	Cols uint16 `json:"cols,omitempty"`
	Keep bool   `json:"keep,omitempty"`
	// Leave keeps the other processes of the command's group when it ends; otherwise they are
	// killed.
	Leave bool `json:"leave,omitempty"`
	// NoFile is the limit of open files, soft and hard; 0: PID 1's own, which it can't exceed.
	NoFile int64 `json:"nofile,omitempty"`
	// NoNewPrivileges keeps the command, and what it starts, from getting more rights.
	NoNewPrivileges bool `json:"no_new_privileges,omitempty"`
}

// Exit is how a process ended: Code is 128+n for signal n.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// Info is one process that PID 1 started and hasn't forgotten.
type Info struct {
	ID   string `json:"id"`
	PID  int    `json:"pid"` // as seen inside the container
	Exit *Exit  `json:"exit,omitempty"`
}

// Answer is a message from PID 1. With TTY the answer to a start carries one descriptor: the
// terminal.
type Answer struct {
	PID       int    `json:"pid,omitempty"`
	Exit      *Exit  `json:"exit,omitempty"`
	Processes []Info `json:"processes,omitempty"`
	// Kind is set on failure. A command that can't be run is NotFound (shells say 127) or Denied
	// (126).
	Kind  errs.Kind `json:"kind,omitempty"`
	Error string    `json:"error,omitempty"`
}

// Err returns the failure that the answer reports, or nil.
func (a Answer) Err() error {
	if a.Kind == "" {
		return nil
	}
	return errs.New(a.Kind, "%s", a.Error)
}

// Failure returns the answer that reports err.
func Failure(err error) Answer { return Answer{Kind: errs.KindOf(err), Error: err.Error()} }
