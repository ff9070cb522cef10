package hostnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// arrived returns how many bytes a host has passed on to a machine.
func (h *host) arrived(m *machine) int64 {
	h.t.Helper()
	var n int64
	h.do(func() error {
		link, err := netlink.LinkByName(m.Interface)
		if err == nil {
			n = int64(link.Attrs().Statistics.TxBytes)
		}
		return err
	})
	return n
}

// flood sends so many bytes to a machine, as fast as it can, and returns how long that took.
func (m *machine) flood(to *machine, bytes int64) time.Duration {
	m.t.Helper()
	began := time.Now()
	m.do(func() error {
		conn, err := net.Dial("udp6", net.JoinHostPort(to.Address.String(), "9"))
		if err != nil {
			return err
		}
		defer conn.Close()
		packet := make([]byte, 1024)
		for sent := int64(0); sent < bytes; sent += int64(len(packet)) {
			// that nobody listens, or that there is no room, is said by an error now and then
			_, _ = conn.Write(packet)
		}
		return nil
	})
	return time.Since(began)
}

// TestOneMachineSendsNoFasterThanItMay: what is sent faster is dropped, of that machine alone, and
// connections get on. The bound is of the time that passed, however slow this host is.
func TestOneMachineSendsNoFasterThanItMay(t *testing.T) {
	const rate, sent = 64 << 10, 16 << 20
	passed := func(rate int64) (h *host, from, other, to *machine, arrived int64,
		took time.Duration) {
		h = newLAN(t, 1)[0]
		_ = h.net.Close()
		h.rate = rate
		h.net = h.open()
		from, other, to = h.addVM(1, 7, 1), h.addVM(2, 7, 1), h.addVM(3, 7, 1)
		if err := h.net.Restore(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		h.add(from, other, to)
		to.sink(port(to.Address, appPort))
		if err := from.send(to, 1); err != nil { // until then neighbours look for each other
			t.Fatal(err)
		}
		before := h.arrived(to)
		took = from.flood(to, sent)
		return h, from, other, to, h.arrived(to) - before, took
	}
	_, _, _, _, free, _ := passed(0)
	if free < sent/2 {
		t.Fatalf("without a bound %d of %d bytes arrive: this test shows nothing", free, sent)
	}
	_, from, other, to, bound, took := passed(rate)
	// a link's own count has headers that the bound knows nothing of
	most := (int64(float64(rate)*(took.Seconds()+1)) + rateBurst) * 5 / 4
	if bound > most {
		t.Errorf("%d bytes arrived in %v; the most are %d", bound, took, most)
	}
	if bound < rate {
		t.Errorf("%d bytes arrived in %v: not even a second's worth", bound, took)
	}
	t.Logf("of %d MiB arrived: without a bound %d KiB, with one of 64 KiB/s %d KiB in %v",
		sent>>20, free>>10, bound>>10, took)
	if err := other.send(to, 128<<10); err != nil {
		t.Errorf("another machine, while one is at its bound: %v", err)
	}
	if err := from.send(to, 128<<10); err != nil {
		t.Errorf("a connection of one at its bound: %v", err)
	}
}

// sink reads what connections bring, and answers with how much it was.
func (m *machine) sink(addr string) {
	m.t.Helper()
	m.listen(addr, func(conn net.Conn) {
		n, _ := io.Copy(io.Discard, conn)
		_, _ = fmt.Fprint(conn, n)
	})
}

// send sends bytes over a connection to a machine's sink, and waits until all are there.
func (m *machine) send(to *machine, bytes int) error {
	return m.try(func() error {
		conn, err := net.DialTimeout("tcp6", port(to.Address, appPort), time.Minute)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
		_, err = conn.Write(make([]byte, bytes))
		closing := conn.(*net.TCPConn).CloseWrite()
		answer, reading := io.ReadAll(conn)
		if string(answer) != fmt.Sprint(bytes) {
			err = errors.Join(err, fmt.Errorf("%q of %d bytes", answer, bytes))
		}
		return errors.Join(err, closing, reading)
	})
}
