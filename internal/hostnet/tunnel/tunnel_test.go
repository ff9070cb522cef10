package tunnel

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func key(b byte) wgtypes.Key { return wgtypes.Key{b} }

func at(address string, networks ...string) peer {
	p := peer{endpoint: netip.MustParseAddrPort(address)}
	for _, n := range networks {
		p.allowed = append(p.allowed, netip.MustParsePrefix(n))
	}
	return p
}

// TestOnlyWhatDiffersIsChanged: of a device's state and the wanted one.
func TestOnlyWhatDiffersIsChanged(t *testing.T) {
	one, two := at("[fd00::1]:51820", "fdaa::/80"), at("[fd00::2]:51820", "fdaa:1::/80")
	have := state{private: key(9), port: 1, peers: map[wgtypes.Key]peer{key(1): one, key(2): two}}
	if c, differs := diff(have, have); differs {
		t.Errorf("the same differs: %+v", c)
	}
	moved := at("[fd00::3]:51820", "fdaa:1::/80")
	want := state{private: key(9), port: 1, peers: map[wgtypes.Key]peer{key(1): one, key(3): moved}}
	c, _ := diff(have, want)
	if c.private != nil || c.port != nil || !reflect.DeepEqual(c.gone, []wgtypes.Key{key(2)}) ||
		!reflect.DeepEqual(c.set, map[wgtypes.Key]peer{key(3): moved}) {
		t.Errorf("%+v", c)
	}
	// The address goes to the new key only after the old one has given it up.
	text := c.uapi()
	gone, set := strings.Index(text, "remove=true"), strings.Index(text, "allowed_ip=")
	if gone < 0 || set < gone {
		t.Errorf("%s", text)
	}
}

func TestStateIsRead(t *testing.T) {
	p := at("[fd00::1]:51820", "fdaa::/80", "fdaa:1::/80")
	want := state{private: key(9), port: 51820, peers: map[wgtypes.Key]peer{key(1): p}}
	c, _ := diff(state{}, want)
	lines := strings.Split(strings.TrimSpace(c.uapi()), "\n")
	lines = append(lines, "last_handshake_time_sec=3", "rx_bytes=7")
	got, err := parseState(lines[1:])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"public_key=zz", "listen_port=70000", "endpoint=here",
		"public_key=00", "allowed_ip=all"} {
		if _, err := parseState([]string{bad}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestKeysAreKept: a file without a key is named, with what to do, and stays as it is.
func TestKeysAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), keyFile)
	first, err := loadKeys(file, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadKeys(file, time.Unix(2, 0))
	if err != nil || again.Current != first.Current || !again.Made.Equal(first.Made) {
		t.Errorf("%v, %v; %v", again, first, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for range 2 { // nothing to forget is no error
		if err := ForgetKeys(filepath.Dir(file)); err != nil {
			t.Fatal(err)
		}
	}
	if fresh, err := loadKeys(file, time.Unix(3, 0)); err != nil || fresh.Current == first.Current {
		t.Errorf("forgotten, and still there: %v", err)
	}
	for _, text := range []string{"", "{}", "garbage", `{"current":"AAAA"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadKeys(file, time.Unix(1, 0))
		if !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), file) ||
			errs.RemedyOf(err) == "" {
			t.Errorf("%q: %v", text, err)
		}
		if now, _ := os.ReadFile(file); string(now) != text {
			t.Errorf("%q became %q", text, now)
		}
	}
}
