package footholds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// bad is a request that must be refused with one of some numbers, and leave the connection usable;
// or end it.
type bad struct {
	name       string
	cmd, flags uint16
	offset     uint64
	length     uint32
	payload    int
	want       []uint32
}

func (n *NBD) bad() []bad {
	const top = ^uint64(0)
	out := []uint32{errnoInval, errnoNoRoom}
	var all []bad
	for name, cmd := range map[string]uint16{"read": cmdRead, "write": cmdWrite, "trim": cmdTrim,
		"zeroes": cmdZeroes} {
		payload := func(length int) int {
			if cmd == cmdWrite {
				return length
			}
			return 0
		}
		all = append(all,
			bad{name + " behind the end", cmd, 0, n.Size, 4096, payload(4096), out},
			bad{name + " across the end", cmd, 0, n.Size - 512, 4096, payload(4096), out},
			bad{name + " that wraps to the start", cmd, 0, top - 4095, 8192, payload(8192), out},
			bad{name + " of the last offset", cmd, 0, top, 1, payload(1), out},
			bad{name + " of a negative offset", cmd, 0, 1 << 63, 512, payload(512), out},
			bad{name + " of nothing", cmd, 0, 0, 0, 0, out},
			bad{name + " with unknown flags", cmd, 0xffe0, 0, 4096, payload(4096), out},
			bad{name + " of the end, forced", cmd, flagFUA, n.Size, 512, payload(512), out})
	}
	return append(all,
		bad{"read of 4 GiB", cmdRead, 0, 0, ^uint32(0), 0, out},
		bad{"read of 33 MiB", cmdRead, 0, 0, 33 << 20, 0, out},
		bad{"write of 4 GiB", cmdWrite, 0, 0, ^uint32(0), 4096, nil},
		bad{"write of 33 MiB, of which little comes", cmdWrite, 0, 0, 33 << 20, 4096, nil},
		bad{"flush of an offset", cmdFlush, 0, 4096, 4096, 0, out},
		bad{"flush of a length that wraps", cmdFlush, flagFUA, top, ^uint32(0), 0, out},
		bad{"zeroes of 4 GiB, written out", cmdZeroes, flagNoHole, 4096, ^uint32(0), 0, out},
		bad{"status that wasn't agreed on", cmdStatus, 0, 0, 4096, 0, out},
		bad{"a cache command", 5, 0, 0, 4096, 0, append(out, errnoNotSup)},
		bad{"resize", 8, 0, 0, 4096, 0, append(out, errnoNotSup)},
		bad{"a command of no kind", 0xffff, 0, 0, 4096, 0, append(out, errnoNotSup, errnoPerm)})
}

func (n *NBD) requests() []Attempt {
	var all []Attempt
	for _, b := range n.bad() {
		all = append(all, Attempt{b.name,
			func(ctx context.Context) error { return n.make(ctx, b) }})
	}
	session := func(name string, do func(c conn) error) {
		all = append(all, Attempt{name, func(ctx context.Context) error {
			c, err := n.begin(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			return do(c)
		}})
	}
	session("a request of another magic", func(c conn) error {
		_, _ = c.Write(make([]byte, 28))
		return c.hungUp()
	})
	session("a write that is cut in the middle", func(c conn) error {
		return c.request(ask{cmdWrite, flagFUA, 1, 0, 64 << 10, make([]byte, 32<<10)})
	})
	session("a header that is cut", func(c conn) error {
		_, err := c.Write([]byte{0x25, 0x60, 0x95, 0x13, 0, 0})
		return err
	})
	session("one handle for many requests", func(c conn) error {
		for range 32 {
			if err := c.request(ask{cmdRead, 0, 7, 0, 16, nil}); err != nil {
				return err
			}
		}
		for range 32 {
			errno, handle, data, err := c.answer(16)
			if err != nil || errno != 0 || handle != 7 || string(data) != Mark {
				return fmt.Errorf("errno %d, handle %d, %q: %w", errno, handle, data, err)
			}
		}
		return nil
	})
	session("answers that nobody reads", func(c conn) error {
		// It may stop to read. That is no hang: it has as much under way as it may.
		if err := c.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		for i := range uint64(4000) {
			if err := c.request(ask{cmdRead, 0, i, 0, 1 << 20, nil}); err != nil {
				break // it hung up, or reads no more
			}
		}
		return n.modest()
	})
	return all
}

func (n *NBD) make(ctx context.Context, b bad) error {
	c, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.request(ask{b.cmd, b.flags, 5, b.offset, b.length,
		make([]byte, b.payload)}); err != nil {
		return nil // it hung up
	}
	if b.want == nil { // too much of it is missing for an answer
		return errors.Join(c.CloseRead(), n.modest())
	}
	errno, handle, _, err := c.answer(0)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	}
	if handle != 5 || !slices.Contains(b.want, errno) {
		return fmt.Errorf("it was answered with errno %d for handle %d", errno, handle)
	}
	return c.whole() // what follows is understood
}

// CloseRead ends what is sent and waits for the server to notice.
func (c conn) CloseRead() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	return c.hungUp()
}

// crowds are many connections at a time, each of which costs its server something.
func (n *NBD) crowds() []Attempt {
	crowd := func(name string, many int, each func(ctx context.Context) (conn, error)) Attempt {
		return Attempt{name, func(ctx context.Context) error {
			var open []conn
			defer func() {
				for _, c := range open {
					_ = c.Close()
				}
			}()
			for range many {
				raw, err := n.Dial(ctx)
				if err != nil {
					break // it takes no more
				}
				open = append(open, conn{raw})
			}
			if each != nil {
				c, err := each(ctx)
				if err != nil {
					return err
				}
				open = append(open, c)
			}
			return n.modest()
		}}
	}
	return []Attempt{
		crowd("300 connections that say nothing", 300, nil),
		crowd("30 connections that say nothing, and one that wants to work", 30, n.begin),
	}
}
