package innerapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxFDs bounds the descriptors of one message.
const maxFDs = 3

// Send writes one message with descriptors, which the caller still owns.
func Send(conn *net.UnixConn, message any, files ...*os.File) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(data) > MaxMessage {
		return errs.New(errs.Invalid, "command and environment take %d bytes, at most %d",
			len(data), MaxMessage).
			WithRemedy("hand over by stdin or in a file what is so long")
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd()) //nolint:gosec // a descriptor is a small int
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(data, oob, nil); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Receive returns one message and its descriptors, which the caller now owns. io.EOF: the other
// side has closed.
func Receive(conn *net.UnixConn, message any) ([]*os.File, error) {
	return receive(conn, message, false)
}

// receive sets the descriptors non-blocking where asked, so that their reads obey deadlines. That
// is a property of the open file, which a child that gets the descriptor would see.
func receive(conn *net.UnixConn, message any, nonblock bool) ([]*os.File, error) {
	buf := make([]byte, MaxMessage+1)
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			return nil, io.EOF
		}
		return nil, err
	}
	files, err := rights(oob[:oobn], nonblock)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		closeAll(files)
		return nil, io.EOF
	}
	if err := json.Unmarshal(buf[:n], message); err != nil {
		closeAll(files)
		return nil, errs.Wrap(errs.Invalid, err, "decode message")
	}
	return files, nil
}

func rights(oob []byte, nonblock bool) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials or the like
		}
		for _, fd := range fds {
			if nonblock {
				_ = unix.SetNonblock(fd, true) // or else reads block a thread, no more
			}
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Widen raises the socket's buffer so that a MaxMessage fits into one packet. Needs root.
func Widen(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*MaxMessage)
	})
	return errors.Join(err, setErr)
}
