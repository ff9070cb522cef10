package api

// Frames of an exec session: a WebSocket at /v1/machines/{ref}/exec. Each binary message starts
// with one of these bytes; the rest of it is the payload. Query of the request: cmd (repeated), env
// (repeated K=V), dir, tty=1, rows, cols, stdin=1. A query is bounded by every server on the way,
// which may log it: with command=1 in place of cmd and env the first message is a FrameCommand.
const (
	FrameStdin    byte = 0 // from the client: bytes for the process
	FrameStdout   byte = 1 // to the client; with a TTY all output comes here
	FrameStderr   byte = 2
	FrameExit     byte = 3 // one more byte: the exit code; the last message of a session
	FrameStdinEOF byte = 4 // from the client: the process' stdin ends here
	// the rest is an ExecError as JSON: the command could not be run; the last message
	FrameError   byte = 5
	FrameCommand byte = 6 // from the client, the first message: the rest is an ExecCommand as JSON
)

// HeaderInstance, in an answer with a machine's logs, has the id of the instance that wrote them.
const HeaderInstance = "Sluice-Instance"

// ExecControl is a text message from the client during a session:
// {"type":"resize","rows":R,"cols":C} or {"type":"signal","signal":"SIGTERM"}. A platform that
// doesn't know a type ignores it.
type ExecControl struct {
	Type   string `json:"type"`
	Rows   int    `json:"rows,omitempty"`
	Cols   int    `json:"cols,omitempty"`
	Signal string `json:"signal,omitempty"`
}

// ExecCommand is a command that is not in the query.
type ExecCommand struct {
	Cmd []string `json:"cmd"`
	Env []string `json:"env,omitempty"` // K=V
}

// ExecError says why a command could not be run.
type ExecError struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}
