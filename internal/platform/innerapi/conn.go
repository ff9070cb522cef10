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

const (
	maxFDs = 3 // descriptors of one message, beside its own
	// maxInline is the largest message that goes through the socket, whose buffer only root of the
	// host may enlarge. A larger one is in a file in memory, and goes as its first descriptor.
	maxInline = 64 << 10
	// inFile is the message that says so; all others are JSON.
	inFile = "F"
)

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
	if len(data) > maxInline {
		f, err := memoryFile(data)
		if err != nil {
			return fmt.Errorf("send message: %w", err)
		}
		defer f.Close()
		data, files = []byte(inFile), append([]*os.File{f}, files...)
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
	buf := make([]byte, maxInline+1)
	oob := make([]byte, unix.CmsgSpace((maxFDs+1)*4))
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
	data := buf[:n]
	if string(data) == inFile && len(files) > 0 {
		data, err = readMemory(files[0])
		files[0].Close()
		files = files[1:]
		if err != nil {
			closeAll(files)
			return nil, errs.Wrap(errs.Invalid, err, "read message")
		}
	}
	if err := json.Unmarshal(data, message); err != nil {
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

// memoryFile returns a file in memory with data.
func memoryFile(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "message") //nolint:gosec // a descriptor
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readMemory returns what such a file holds. A file of any other kind, whose read might wait, is
// refused.
func readMemory(f *os.File) ([]byte, error) {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil {
		return nil, fmt.Errorf("it is in no file in memory: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxMessage {
		return nil, fmt.Errorf("it has %d bytes, at most %d", info.Size(), MaxMessage)
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data[:n], err
}
