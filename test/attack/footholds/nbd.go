package footholds

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// NBD is the foothold of a client of an NBD server. Of the export's content the first megabyte is
// Mark, over and over, and nothing that is tried may change it.
type NBD struct {
	Dial   func(context.Context) (net.Conn, error)
	Export string                // that is there
	Size   uint64                // of it
	Memory func() (int64, error) // that the server has resident
}

// Mark is what the export holds before the attempts; 16 bytes.
const Mark = "well-behaved-one"

const (
	marked      = 1 << 20 // bytes of the export that hold Mark
	mayTake     = 256 << 20
	nbdOption   = 0x49484156454F5054
	nbdRequest  = 0x25609513
	optGo       = 7
	cmdRead     = 0
	cmdWrite    = 1
	cmdFlush    = 3
	cmdTrim     = 4
	cmdZeroes   = 6
	cmdStatus   = 7
	flagFUA     = 1
	flagNoHole  = 2
	errnoPerm   = 1
	errnoInval  = 22
	errnoNoRoom = 28
	errnoNotSup = 95
)

// conn is a connection to the server, as raw as it takes.
type conn struct{ net.Conn }

// hello connects, and answers the server's greeting with flags.
func (n *NBD) hello(ctx context.Context, flags uint32) (conn, error) {
	c, err := n.Dial(ctx)
	if err != nil {
		return conn{}, err
	}
	end, _ := ctx.Deadline()
	if err := c.SetDeadline(end); err != nil {
		return conn{}, errors.Join(err, c.Close())
	}
	if _, err := io.ReadFull(c, make([]byte, 18)); err != nil {
		return conn{}, errors.Join(fmt.Errorf("no greeting: %w", err), c.Close())
	}
	_, err = c.Write(binary.BigEndian.AppendUint32(nil, flags))
	return conn{c}, err
}

// option sends one, whose length may lie.
func (c conn) option(number, length uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, nbdOption)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, number), length)
	_, err := c.Write(append(b, data...))
	return err
}

// reply reads an answer to an option.
func (c conn) reply() (uint32, error) {
	var head [20]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, err
	}
	_, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[16:])))
	return binary.BigEndian.Uint32(head[12:]), err
}

// begin is what a well-behaved client does before its first request.
func (n *NBD) begin(ctx context.Context) (conn, error) {
	c, err := n.hello(ctx, 3)
	if err != nil {
		return c, err
	}
	data := goFor(n.Export)
	if err := c.option(optGo, uint32(len(data)), data); err != nil {
		return c, err
	}
	for {
		switch kind, err := c.reply(); {
		case err != nil || kind != 1 && kind != 3:
			return c, errors.Join(fmt.Errorf("GO was answered with %#x: %w", kind, err), c.Close())
		case kind == 1:
			return c, nil
		}
	}
}

func goFor(name string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	return append(append(b, name...), 0, 0)
}

// ask is a request, whose length may lie.
type ask struct {
	cmd, flags     uint16
	handle, offset uint64
	length         uint32
	payload        []byte
}

func (c conn) request(r ask) error {
	b := binary.BigEndian.AppendUint32(nil, nbdRequest)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, r.flags), r.cmd)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.handle), r.offset)
	_, err := c.Write(append(binary.BigEndian.AppendUint32(b, r.length), r.payload...))
	return err
}

// answer reads a simple reply; payload is what follows one of a READ that was done.
func (c conn) answer(payload int) (errno uint32, handle uint64, data []byte, err error) {
	var b [16]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return 0, 0, nil, err
	}
	if binary.BigEndian.Uint32(b[:]) != 0x67446698 {
		return 0, 0, nil, fmt.Errorf("not an answer: %x", b)
	}
	errno, handle = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	if errno == 0 && payload > 0 {
		data = make([]byte, payload)
		_, err = io.ReadFull(c, data)
	}
	return errno, handle, data, err
}

// whole reads the marked part as anybody would, and says if it isn't as it was.
func (c conn) whole() error {
	if err := c.request(ask{cmdRead, 0, 77, 0, marked, nil}); err != nil {
		return fmt.Errorf("a good client's read: %w", err)
	}
	errno, handle, data, err := c.answer(marked)
	switch want := bytes.Repeat([]byte(Mark), marked/len(Mark)); {
	case err != nil || errno != 0 || handle != 77:
		return fmt.Errorf("a good client's read: errno %d, handle %d: %w", errno, handle, err)
	case !bytes.Equal(data, want):
		return errors.New("a good client's disk was changed")
	}
	return nil
}

// Fill writes the mark, as a well-behaved client.
func (n *NBD) Fill(ctx context.Context) error {
	c, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.request(ask{cmdWrite, flagFUA, 1, 0, marked,
		bytes.Repeat([]byte(Mark), marked/len(Mark))}); err != nil {
		return err
	}
	if errno, _, _, err := c.answer(0); err != nil || errno != 0 {
		return fmt.Errorf("write the mark: errno %d: %w", errno, err)
	}
	return c.whole()
}

// Attempts returns all of them. After each the server has little memory, and serves others.
func (n *NBD) Attempts() []Attempt {
	all := slices.Concat(n.negotiations(), n.requests(), n.crowds())
	for i, a := range all {
		all[i].Name, all[i].Do = "nbd: "+a.Name, func(ctx context.Context) error {
			good, err := n.begin(ctx)
			if err != nil {
				return fmt.Errorf("a good client before: %w", err)
			}
			defer good.Close()
			return errors.Join(a.Do(ctx), good.whole(), n.modest(), n.another(ctx))
		}
	}
	return all
}

func (n *NBD) another(ctx context.Context) error {
	c, err := n.begin(ctx)
	if err != nil {
		return fmt.Errorf("a good client after: %w", err)
	}
	defer c.Close()
	return c.whole()
}

func (n *NBD) modest() error {
	has, err := n.Memory()
	if err == nil && has > mayTake {
		err = fmt.Errorf("the server has %d MiB", has>>20)
	}
	return err
}

// hungUp reads on until the server closes the connection, and says if it has sent a session.
func (c conn) hungUp() error {
	defer c.Close()
	got, err := io.ReadAll(io.LimitReader(c, 1<<20))
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return fmt.Errorf("the server neither refuses nor hangs up, after %d bytes", len(got))
	}
	return nil
}

func (n *NBD) negotiations() []Attempt {
	var all []Attempt
	add := func(name string, flags uint32, say func(c conn) error) {
		all = append(all, Attempt{name, func(ctx context.Context) error {
			c, err := n.hello(ctx, flags)
			if err != nil {
				return err
			}
			// A server that hangs up before all is said has refused it.
			_ = say(c)
			return c.hungUp()
		}})
	}
	silent := func(conn) error { return nil }
	add("flags of no client", 0xffffffff, silent)
	add("not fixed newstyle", 0, silent)
	add("says nothing after its flags", 3, silent)
	add("a greeting of another magic", 3, func(c conn) error {
		_, err := c.Write(make([]byte, 4096))
		return err
	})
	add("HTTP", 3, func(c conn) error {
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return err
	})
	add("an option of 4 GiB, of which little comes", 3, func(c conn) error {
		return c.option(optGo, 0xffffffff, make([]byte, 1<<20))
	})
	add("an option of 4 GiB of no kind", 3, func(c conn) error {
		return c.option(0xdeadbeef, 0xffffffff, nil)
	})
	add("half an option", 3, func(c conn) error {
		_, err := c.Write(binary.BigEndian.AppendUint64(nil, nbdOption)[:5])
		return err
	})
	add("10,000 options", 3, func(c conn) error {
		for range 10_000 {
			if err := c.option(0xbeef, 0, nil); err != nil {
				return err
			}
			if _, err := c.reply(); err != nil {
				return err
			}
		}
		return nil
	})
	add("an option byte by byte", 3, func(c conn) error {
		for range 1000 {
			if err := c.option(3, 1, []byte{0}); err != nil {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	return append(all, n.names()...)
}

// names asks for exports that aren't there, and for the one that is in ways that lie.
func (n *NBD) names() []Attempt {
	good := goFor(n.Export)
	lies := map[string][]byte{"of another": goFor("another"), "above": goFor("../" + n.Export),
		"with a NUL": goFor(n.Export + "\x00x"), "with more behind it": goFor(n.Export + "x"),
		"with a slash": goFor("/" + n.Export), "that is long": goFor(strings.Repeat("a", 5000)),
		"longer than the option":          append([]byte{0xff, 0xff, 0xff, 0xff}, good[4:]...),
		"shorter than it":                 append([]byte{0, 0, 0, 0}, good[4:]...),
		"with requests that aren't there": append(slices.Clone(good[:len(good)-2]), 0xff, 0xff),
		"that is missing":                 {}, "that is cut": good[:3]}
	var all []Attempt
	for name, data := range lies {
		for how, number := range map[string]uint32{"GO": optGo, "INFO": 6, "META": 10} {
			title := how + " of a name " + name
			all = append(all, Attempt{title, func(ctx context.Context) error {
				c, err := n.hello(ctx, 3)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.option(number, uint32(len(data)), data); err != nil {
					return err
				}
				if kind, err := c.reply(); err == nil && kind&(1<<31) == 0 {
					return fmt.Errorf("it was answered with %#x", kind)
				}
				return nil
			}})
		}
	}
	for how, name := range map[string]string{"of another": "another", "above": "../" + n.Export,
		"with a NUL": n.Export + "\x00"} {
		title := "the old way, for a name " + how
		all = append(all, Attempt{title, func(ctx context.Context) error {
			c, err := n.hello(ctx, 3)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.option(1, uint32(len(name)), []byte(name)); err != nil {
				return err
			}
			if got, _ := io.ReadAll(io.LimitReader(c, 10)); len(got) == 10 {
				return errors.New("it was given a disk")
			}
			return nil
		}})
	}
	return all
}
