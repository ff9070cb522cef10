// Package diskbroker is how the platform of a VM without privileges on its host has its disk shown
// and mounted: a process of the host, the VM's broker, does what needs them, and nothing else. Here
// are the messages, and the client. Each call is a connection of its own to a unix socket, so that
// a platform that is started again goes on where the last one was.
//
// Invariants: a request names nothing of the host. It is about the one disk of the VM whose socket
// it is, and has a fixed form of at most maxRequest bytes. What it returns are descriptors: a FUSE
// connection, which the VM serves, and mounts, which it attaches in its own namespace. A VM never
// holds a descriptor of a loop device: with one it could let go of it, and read what the next owner
// puts there.
package diskbroker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Socket is where a VM's broker listens, in the VM. A VM without it has a kernel of its own.
const Socket = "/run/sluice/host.sock"

// Op is what is asked for.
type Op byte

// The operations; see the methods of Client.
const (
	OpWatch Op = iota + 1
	OpConnect
	OpAttach
	OpResize
	OpDetach
	OpAbort
	OpMount
	OpBarriers
	OpGrow
	OpTree
	OpUnmount
	OpDrop
	lastOp = OpDrop
)

const (
	maxName    = 128
	maxRequest = 2 + maxName
	maxReply   = 16 << 10
)

// Request is one call.
type Request struct {
	Op   Op
	On   bool   // of OpBarriers
	Name string // of OpConnect
	// Users is the user namespace of OpTree; closed by who reads the request.
	Users *os.File
}

// Reply is the answer to one call. Its file, if there is one, travels beside it.
type Reply struct {
	Kind   errs.Kind  `json:"kind,omitempty"` // "": done
	Text   string     `json:"text,omitempty"`
	Remedy string     `json:"remedy,omitempty"`
	Errno  unix.Errno `json:"errno,omitempty"` // in Text's words; 0: another cause

	Path  string `json:"path,omitempty"`  // of OpAttach
	Grown bool   `json:"grown,omitempty"` // of OpGrow, as are the next two
	Has   int64  `json:"has,omitempty"`
	Could int64  `json:"could,omitempty"`
}

// Failed returns the reply that tells of an error; nil is success.
func Failed(err error) Reply {
	if err == nil {
		return Reply{}
	}
	r := Reply{Kind: errs.KindOf(err), Text: err.Error(), Remedy: errs.RemedyOf(err)}
	_ = errors.As(err, &r.Errno) // 0 where there is none
	return r
}

// err is the error that the reply tells of.
func (r Reply) err() error {
	if r.Kind == "" {
		return nil
	}
	var err *errs.Error
	if r.Errno != 0 {
		err = errs.Wrap(r.Kind, r.Errno, "the VM's broker: %s", r.Text)
	} else {
		err = errs.New(r.Kind, "the VM's broker: %s", r.Text)
	}
	if r.Remedy != "" {
		return err.WithRemedy("%s", r.Remedy)
	}
	return err
}

// ReadRequest reads one request. Invalid: it has not the form of one.
func ReadRequest(conn *net.UnixConn) (Request, error) {
	data, files, err := receive(conn, maxRequest+1)
	if err != nil {
		return Request{}, err
	}
	r := Request{Users: first(files)}
	if len(data) < 2 || len(data) > maxRequest || data[0] == 0 || Op(data[0]) > lastOp ||
		data[1] > 1 {
		closeAll(files)
		return Request{}, errs.New(errs.Invalid, "a request of %d bytes is none", len(data))
	}
	r.Op, r.On, r.Name = Op(data[0]), data[1] == 1, string(data[2:])
	return r, nil
}

func (r Request) send(conn *net.UnixConn) error {
	if len(r.Name) > maxName {
		return errs.New(errs.Invalid, "a name of %d bytes", len(r.Name))
	}
	data := []byte{byte(r.Op), 0}
	if r.On {
		data[1] = 1
	}
	return send(conn, append(data, r.Name...), r.Users)
}

// Send answers with a reply, and a copy of a file, unless that is nil.
func (r Reply) Send(conn *net.UnixConn, file *os.File) error {
	if len(r.Text) > maxReply/4 {
		r.Text = r.Text[:maxReply/4]
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a reply: %w", err)
	}
	return send(conn, data, file)
}

func readReply(conn *net.UnixConn) (r Reply, file *os.File, err error) {
	data, files, err := receive(conn, maxReply)
	if err != nil {
		return r, nil, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		closeAll(files)
		return r, nil, errs.Wrap(errs.Unavailable, err, "read the answer of the VM's broker")
	}
	return r, first(files), r.err()
}

func send(conn *net.UnixConn, data []byte, file *os.File) error {
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd())) //nolint:gosec // a descriptor
	}
	_, _, err := conn.WriteMsgUnix(data, rights, nil)
	return err
}

// receive reads one message and at most one file; it closes what more files come along.
func receive(conn *net.UnixConn, most int) ([]byte, []*os.File, error) {
	data, oob := make([]byte, most), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, nil, errs.Wrap(errs.Invalid, err, "read passed files")
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // it carries something else
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed")) //nolint:gosec // a descriptor
		}
	}
	if len(files) > 1 {
		closeAll(files[1:])
	}
	return data[:n], files, nil
}

func first(files []*os.File) *os.File {
	if len(files) == 0 {
		return nil
	}
	return files[0]
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
