package footholds

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// layouts are OCI images that lie of themselves.
func layouts() []supply {
	one := []entry{file("f", "x")}
	bad, broken := []string{invalid}, []string{corrupt, invalid}
	same := func(map[string]any, map[string]any, []string) {}
	cycle := strings.Repeat("a", 64)
	return []supply{
		{"oci: a good one", oci(one, same), []string{built}},
		{"oci: a layer of another digest", oci(one, func(_, _ map[string]any, layers []string) {
			layers[0] += strings.Repeat("\x00", 512)
		}), broken},
		{"oci: a layer that isn't there", oci(one, func(_, m map[string]any, _ []string) {
			m["layers"] = []any{descriptor("layer.v1.tar", "other")}
		}), bad},
		{"oci: a layer at a path", oci(one, func(_, m map[string]any, _ []string) {
			m["layers"] = []any{map[string]any{"size": 1, "digest": "sha256:../../../../etc/passwd",
				"mediaType": "application/vnd.oci.image.layer.v1.tar"}}
		}), bad},
		{"oci: a layer of an algorithm that is a path", oci(one,
			func(_, m map[string]any, _ []string) {
				m["layers"] = []any{map[string]any{"mediaType": "x", "size": 1,
					"digest": "../../../etc:" + cycle}}
			}), bad},
		{"oci: a layer elsewhere", oci(one, func(_, m map[string]any, _ []string) {
			m["layers"] = []any{map[string]any{"size": 6, "digest": "sha256:" + digest("other"),
				"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
				"urls":      []string{"http://169.254.169.254/latest/meta-data/"}}}
		}), bad},
		{"oci: a config that isn't there", oci(one, func(_, m map[string]any, _ []string) {
			m["config"] = descriptor("config.v1+json", "other")
		}), bad},
		{"oci: a config of 17 MiB", oci(one, func(c, _ map[string]any, _ []string) {
			c["author"] = strings.Repeat("x", 17<<20)
		}), []string{invalid, exhausted}},
		{"oci: a config nested 100,000 deep", layout(`{"schemaVersion":2,"manifests":` +
			strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`), bad},
		{"oci: 10,000 layers that aren't there", oci(one, func(_, m map[string]any, _ []string) {
			layers := make([]any, 10_000)
			for i := range layers {
				layers[i] = descriptor("layer.v1.tar", fmt.Sprint(i))
			}
			m["layers"] = layers
		}), bad},
	}
}

// indexes are OCI layouts whose index lies.
func indexes() []supply {
	bad, broken := []string{invalid}, []string{corrupt, invalid}
	self := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",` +
		`"manifests":[]}`
	cycle := strings.Repeat("a", 64)
	cyclic := `{"schemaVersion":2,"manifests":[{"mediaType":` +
		`"application/vnd.oci.image.index.v1+json","size":999,"digest":"sha256:` + cycle + `"}]}`
	many := make([]any, 2000)
	for i := range many {
		many[i] = descriptor("index.v1+json", self)
	}
	return []supply{
		{"oci: an index in itself", layout(cyclic, file("blobs/sha256/"+cycle, cyclic)), broken},
		{"oci: 2,000 indexes", layout(inJSON(map[string]any{"schemaVersion": 2,
			"manifests": many}), blobOf(self)), bad},
		{"oci: an index of nothing", layout(`{"schemaVersion":2,"manifests":[]}`),
			[]string{invalid, "unsupported"}},
		{"oci: an index that is no JSON", layout("\x00\xff"), bad},
		{"oci: an index that is a link", append(layout("")[:3], link("index.json", "/etc/passwd")),
			bad},
		{"oci: an index that never ends", append(layout("")[:3],
			special("index.json", tar.TypeChar)), bad},
		{"oci: blobs elsewhere", []entry{file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
			file("index.json", cyclic), link("blobs", "/etc")}, bad},
	}
}

// layersOf are layers that want to get out, and whiteouts that want to take more than is theirs.
func layersOf() []supply {
	bad, either := []string{invalid}, []string{built, invalid}
	same := func(map[string]any, map[string]any, []string) {}
	of := func(entries ...entry) []entry { return oci(entries, same) }
	return []supply{
		{"layer: a name that goes up", of(file("../evil", "x")), bad},
		{"layer: a whiteout of the parent", of(file(".wh...", "")), bad},
		{"layer: a whiteout of itself", of(file("d/.wh..", "")), bad},
		{"layer: a whiteout of nothing", of(file(".wh.", "")), bad},
		{"layer: a whiteout with a path", of(file("d/.wh.../../x", "")), bad},
		{"layer: a whiteout of what isn't there", of(file(".wh.none", "")), either},
		{"layer: a whiteout below a file", of(file("f", "x"), file("f/.wh.x", "")), bad},
		{"layer: an opaque file", of(file("f", "x"), file("f/.wh..wh..opq", "")), bad},
		{"layer: a whiteout through a link", of(link("l", "/"), file("l/.wh.etc", "")), either},
		{"layer: a whiteout through links that go round", of(link("a", "b"), link("b", "a"),
			file("a/.wh.x", "")), bad},
		{"layer: an opaque root", of(file(".wh..wh..opq", "")), either},
	}
}

// savedImages are archives as docker save makes them.
func savedImages() []supply {
	bad := []string{invalid}
	of := func(manifest string, more ...entry) []entry {
		return append(more, file("manifest.json", manifest))
	}
	config := inJSON(map[string]any{"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest("")}}})
	return []supply{
		{"saved: a config above", of(`[{"Config":"../../../etc/passwd","Layers":["l"]}]`), bad},
		{"saved: a config of the host", of(`[{"Config":"/etc/passwd","Layers":["l"]}]`), bad},
		{"saved: a layer of the host", of(`[{"Config":"c","Layers":["/etc/passwd"]}]`,
			file("c", config)), bad},
		{"saved: a layer above", of(`[{"Config":"c","Layers":["../../etc/passwd"]}]`,
			file("c", config)), bad},
		{"saved: a layer that is a link", of(`[{"Config":"c","Layers":["l"]}]`, file("c", config),
			link("l", "/etc/passwd")), bad},
		{"saved: a layer that is a pipe", of(`[{"Config":"c","Layers":["l"]}]`, file("c", config),
			special("l", tar.TypeFifo)), bad},
		{"saved: more digests than layers", of(`[{"Config":"c","Layers":[]}]`, file("c", config)),
			bad},
		{"saved: two images", of(`[{"Config":"c"},{"Config":"c"}]`, file("c", config)), bad},
	}
}

// bombs are small, and stand for much.
func bombs() map[string]func() ([]byte, error) {
	many := func(n int, each func(i int) entry) func() ([]byte, error) {
		return func() ([]byte, error) {
			var buf bytes.Buffer
			z := gzip.NewWriter(&buf)
			w := tar.NewWriter(z)
			for i := range n {
				h := each(i).Header
				if err := w.WriteHeader(&h); err != nil {
					return nil, err
				}
			}
			err := errors.Join(w.Close(), z.Close())
			return buf.Bytes(), err
		}
	}
	zeros := func(kind byte, size, comes int64) func() ([]byte, error) {
		return func() ([]byte, error) {
			var buf bytes.Buffer
			z := gzip.NewWriter(&buf)
			w := tar.NewWriter(z)
			if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: kind, Size: size,
				Format: tar.FormatPAX}); err != nil {
				return nil, err
			}
			_, err := io.CopyN(w, nothing{}, comes)
			// What was announced doesn't come, so the archive isn't closed.
			err = errors.Join(err, z.Close())
			return buf.Bytes(), err
		}
	}
	return map[string]func() ([]byte, error){
		"60,000 files": many(60_000, func(i int) entry { return file(fmt.Sprint("f", i), "") }),
		"60,000 entries of one name": many(60_000,
			func(int) entry { return file("f", "") }),
		"folders that only names tell of": many(40, func(i int) entry {
			return folder(fmt.Sprint(i, strings.Repeat("/a", 1000)))
		}),
		"256 MiB of zeros":     zeros(tar.TypeReg, 257<<20, 257<<20),
		"a file of 8 EiB":      zeros(tar.TypeReg, 1<<62, 1<<20),
		"gzip in gzip in gzip": nested,
		"a stream of no kind": func() ([]byte, error) {
			return bytes.Repeat([]byte{1}, 64<<10), nil
		},
		"gzip of nothing known": func() ([]byte, error) {
			return []byte{0x1f, 0x8b, 8, 0xff, 0}, nil
		},
		"zstd with a window of 8 EiB": func() ([]byte, error) {
			return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 1, 0, 0}, nil
		},
	}
}

func nested() ([]byte, error) {
	data := make([]byte, 64<<20)
	var err error
	for range 3 {
		if data, err = zip(data); err != nil {
			return nil, err
		}
	}
	return data, nil
}

type nothing struct{}

// Read implements io.Reader.
func (nothing) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
