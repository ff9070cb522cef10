package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
	"time"
)

// Entry is one call, or the end of an exec. It never has bodies, environments or secrets.
type Entry struct {
	Seq  int64     `json:"seq"`  // given when it becomes part of the chain
	Time time.Time `json:"time"` // of the answer
	// RequestID is the server's own; the one that the caller gave is kept apart.
	RequestID string   `json:"request_id"`
	CallersID string   `json:"callers_id,omitempty"`
	Kind      string   `json:"kind"`    // of the subject
	Subject   string   `json:"subject"` // its name
	Token     string   `json:"token,omitempty"`
	Person    *Person  `json:"person,omitempty"` // who has signed in
	Remote    string   `json:"remote"`
	Call      string   `json:"call"`              // method and route
	Objects   []string `json:"objects,omitempty"` // kind/id
	Exec      *Exec    `json:"exec,omitempty"`
	Status    int      `json:"status"` // 0: it isn't known, see Note
	Code      string   `json:"code,omitempty"`
	TookMS    float64  `json:"took_ms"`
	Note      string   `json:"note,omitempty"`
}

// Person is what the issuer and the roles said of somebody who has signed in.
type Person struct {
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"` // as the issuer calls nobody else
	By      []string `json:"by"`      // lines of the roles that counted, as in "group ops"
}

// Exec is a command, of which only the program is told by name.
type Exec struct {
	Program string `json:"program"`
	SHA256  string `json:"sha256"` // of all arguments, each ended by a NUL
}

const maxProgram = 64 // bytes of a name

// ExecOf describes a command.
func ExecOf(cmd []string) *Exec {
	h := sha256.New()
	for _, arg := range cmd {
		h.Write([]byte(arg))
		h.Write([]byte{0})
	}
	e := &Exec{SHA256: hex.EncodeToString(h.Sum(nil))}
	if len(cmd) > 0 && cmd[0] != "" {
		e.Program = path.Base(cmd[0])
		e.Program = strings.ToValidUTF8(e.Program[:min(len(e.Program), maxProgram)], "")
	}
	return e
}

// interrupted is the note of a call that was under way when the server ended.
const interrupted = "interrupted: the server ended during the call, which may be done or not"
