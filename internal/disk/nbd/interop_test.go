package nbd_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/nbd"
)

// TestQemuImg copies an image in and out and compares, all with QEMU's client.
func TestQemuImg(t *testing.T) {
	d := newDisk(t)
	s := serve(t, export(d))
	raw, want := rawImage(t)
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, s.uri)
	checkContent(t, d, want)
	if n := dataBytes(t, d); n > 8<<20 {
		t.Errorf("%d bytes hold content after an import of 6 MiB", n)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, s.uri)
	for _, format := range []string{"raw", "qcow2"} {
		out := filepath.Join(t.TempDir(), "out")
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", format, s.uri, out)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", format, raw, out)
		var st syscall.Stat_t
		if err := syscall.Stat(out, &st); err != nil || st.Blocks*512 > 9<<20 {
			t.Errorf("%s: %d bytes on disk for 6 MiB of content: %v", format, st.Blocks*512, err)
		}
	}
	if err := os.WriteFile(raw, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryTool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw,
		s.uri); err == nil {
		t.Error("qemu-img finds images alike that aren't")
	}
}

// TestNbdcopy does the same with libnbd's client, which opens several connections.
func TestNbdcopy(t *testing.T) {
	d := newDisk(t)
	s := serve(t, export(d))
	raw, want := rawImage(t)
	tool(t, "nbdcopy", "--flush", "--connections=4", raw, s.uri)
	checkContent(t, d, want)
	out := filepath.Join(t.TempDir(), "out")
	tool(t, "nbdcopy", "--connections=4", s.uri, out)
	tool(t, "cmp", raw, out)
	tool(t, "nbdcopy", s.uri, "null:")
}

func TestNbdinfo(t *testing.T) {
	d := newDisk(t)
	if err := d.WriteAt(testCtx(t), make([]byte, 1<<20), 8<<20); err != nil {
		t.Fatal(err)
	}
	cfg := export(d)
	cfg.Exports = append(cfg.Exports, nbd.Export{Name: "b", Device: d, ReadOnly: true})
	s := serve(t, cfg)
	var info struct {
		Protocol   string `json:"protocol"`
		Structured bool   `json:"structured"`
		Exports    []map[string]any
	}
	if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--list", "--json", s.uri)),
		&info); err != nil {
		t.Fatal(err)
	}
	if info.Protocol != "newstyle-fixed" || len(info.Exports) != 2 {
		t.Fatalf("%+v", info)
	}
	for i, want := range []map[string]any{
		{"export-name": "a", "description": "a test disk", "export-size": float64(diskSize),
			"is_read_only": false, "can_flush": true,
			"can_fua": true, "can_trim": true, "can_zero": true, "can_fast_zero": true,
			"can_multi_conn": true, "can_df": true,
			"block_size_minimum": 1.0, "block_size_preferred": 65536.0,
			"block_size_maximum": 33554432.0},
		{"export-name": "b", "is_read_only": true, "can_flush": true, "can_trim": false,
			"can_zero": false, "can_multi_conn": true},
	} {
		for k, v := range want {
			if fmt.Sprint(info.Exports[i][k]) != fmt.Sprint(v) {
				t.Errorf("export %d: %s is %v, want %v", i, k, info.Exports[i][k], v)
			}
		}
		if !strings.Contains(fmt.Sprint(info.Exports[i]["contexts"]), "base:allocation") {
			t.Errorf("export %d: contexts %v", i, info.Exports[i]["contexts"])
		}
	}
	got := strings.Join(strings.Fields(tool(t, "nbdinfo", "--map", s.uri)), " ")
	if want := "0 8388608 3 hole,zero 8388608 1048576 0 data 9437184 57671680 3 hole,zero"; got != want {
		t.Errorf("map: %s, want %s", got, want)
	}
}

// TestQemuIO writes, zeroes, discards and verifies patterns; -f forces a write through, -z zeroes,
// -u allows holes for that, -n demands that it is fast.
func TestQemuIO(t *testing.T) {
	d := newDisk(t)
	s := serve(t, export(d))
	io := func(commands ...string) string {
		args := []string{"-f", "raw", "--discard=unmap"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		return tool(t, "qemu-io", append(args, s.uri)...)
	}
	io("write -P 0xab 0 4M", "write -P 0xcd 1M 64k", "flush", "read -P 0xab 0 1M",
		"read -P 0xcd 1M 64k", "read -P 0xab 1088k 1M")
	io("write -f -P 0x11 512 1024", "read -P 0xab 0 512", "read -P 0x11 512 1024",
		"read -P 0xab 1536 512")
	io("write -z 2M 512k", "read -P 0 2M 512k", "write -z -u 3M 512k", "read -P 0 3M 512k",
		"read -P 0xab 2560k 512k")
	io("discard 0 1M", "read -P 0 0 1M", "aio_write -P 5 10M 1M", "aio_write -P 6 11M 1M",
		"aio_flush", "flush", "read -P 5 10M 1M", "read -P 6 11M 1M")
	ctx := testCtx(t)
	for _, x := range []struct {
		off, end int64
		data     bool
	}{{0, 1 << 20, false}, {2 << 20, 2560 << 10, true}, {3 << 20, 3584 << 10, false}} {
		end, data, err := d.NextExtent(ctx, x.off, x.end)
		if err != nil || end != x.end || data != x.data {
			t.Errorf("at %d: to %d, content %v, %v; want %+v", x.off, end, data, err, x)
		}
	}
	if out, err := tryTool(t, "qemu-io", "-f", "raw", "-c", "write -z -u -n 0 1M",
		s.uri); err != nil {
		t.Errorf("fast zeroing with holes: %v\n%s", err, out)
	}
}

func TestReadOnlyExport(t *testing.T) {
	cfg := export(newDisk(t))
	cfg.Exports[0].ReadOnly = true
	s := serve(t, cfg)
	out, err := tryTool(t, "qemu-io", "-f", "raw", "-c", "write 0 4k", s.uri)
	if err == nil {
		t.Errorf("a write to a read-only export succeeded: %s", out)
	}
	tool(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 4k", s.uri)
}

// TestTLS serves over TCP with certificates: with them it works, without it is refused.
func TestTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := export(newDisk(t))
	var creds string
	cfg.TLS, creds = newCertificates(t)
	s := serveOn(t, l, cfg)
	secure := strings.Replace(s.uri, "nbd://", "nbds://", 1) + "/a?tls-certificates=" + creds
	if out := tool(t, "nbdinfo", "--json", secure); !strings.Contains(out, `"TLS": true`) {
		t.Errorf("not over TLS: %s", out)
	}
	raw, _ := rawImage(t)
	tool(t, "nbdcopy", raw, secure)
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=t,endpoint=client,dir="+creds,
		"--image-opts",
		"driver=raw,file.driver=file,file.filename="+raw,
		"driver=raw,file.driver=nbd,file.host="+host+",file.port="+port+",file.export=a,file.tls-creds=t,file.tls-hostname=localhost")
	for _, uri := range []string{s.uri, s.uri + "/a"} {
		if out, err := tryTool(t, "nbdinfo", uri); err == nil {
			t.Errorf("served without TLS: %s", out)
		}
	}
}
