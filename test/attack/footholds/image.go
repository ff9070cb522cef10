package footholds

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Image is the foothold of who supplies an image. Canary is a directory of the host that builds it,
// in which nothing may change.
type Image struct {
	// Create has an image built of an archive, and returns its error's code and text; "": it was
	// built.
	Create func(ctx context.Context, archive io.Reader) (code, text string, err error)
	Canary string
	Memory func() (int64, error) // that the server has resident
}

// Codes of refusals.
const (
	invalid   = "invalid"
	exhausted = "exhausted"
	corrupt   = "corrupt"
	built     = "" // it is taken, and harms nobody
)

// entry is one of an archive.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))},
		body}
}

func folder(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func link(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}

func hardLink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}

func special(name string, kind byte) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Mode: 0o666, Devmajor: 1, Devminor: 5}, ""}
}

func pack(entries []entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("pack %q: %w", h.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

func zip(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, err := z.Write(data)
	err = errors.Join(err, z.Close())
	return buf.Bytes(), err
}

const canaryText = "nobody changes this"

// Prepare fills the canary's directory.
func (i *Image) Prepare() error {
	if err := os.MkdirAll(filepath.Join(i.Canary, "sub"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"file", "sub/file"} {
		if err := os.WriteFile(filepath.Join(i.Canary, name), []byte(canaryText),
			0o644); err != nil {
			return err
		}
	}
	return nil
}

// unharmed says what has changed on the host.
func (i *Image) unharmed() error {
	var got []string
	err := filepath.WalkDir(i.Canary, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(i.Canary, path)
		got = append(got, fmt.Sprintf("%s %v %s", rel, info.Mode(), text))
		return err
	})
	want := []string{"file -rw-r--r-- " + canaryText, "sub/file -rw-r--r-- " + canaryText}
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("the host has %q, and had %q", got, want)
	}
	has, memErr := i.Memory()
	if memErr == nil && has > 1<<30 {
		memErr = fmt.Errorf("the server has %d MiB", has>>20)
	}
	return errors.Join(err, memErr)
}

// supply is an archive, and the codes with which it may be answered.
type supply struct {
	name    string
	entries []entry
	want    []string
}

// Attempts returns all of them.
func (i *Image) Attempts() []Attempt {
	var all []Attempt
	add := func(name string, want []string, data func() ([]byte, error)) {
		all = append(all, Attempt{"image: " + name, func(ctx context.Context) error {
			archive, err := data()
			if err != nil {
				return err
			}
			code, text, err := i.Create(ctx, bytes.NewReader(archive))
			if err == nil && !slices.Contains(want, code) {
				err = fmt.Errorf("it was answered with %q, want one of %q: %s", code, want, text)
			}
			return errors.Join(err, i.unharmed())
		}})
	}
	for _, s := range slices.Concat(i.trees(), i.oddEntries(), layouts(), indexes(),
		savedImages(), layersOf()) {
		add(s.name, s.want, func() ([]byte, error) { return pack(s.entries) })
	}
	for name, data := range bombs() {
		add(name, []string{exhausted, invalid}, data)
	}
	return all
}

// trees are archives of files.
func (i *Image) trees() []supply {
	c := i.Canary
	up := strings.Repeat("../", 40)
	either, bad := []string{built, invalid}, []string{invalid}
	return []supply{
		{"a name with its parent", []entry{file("../evil", "x")}, bad},
		{"a name that goes up to the host", []entry{file(up+c+"/evil", "x")}, bad},
		{"a name that goes down and up", []entry{file("a/b/../../../evil", "x")}, bad},
		{"a folder above", []entry{folder(up + c + "/evil")}, bad},
		{"a whole path of the host", []entry{file(c+"/evil", "x")}, either},
		{"a whole path of a file of the host", []entry{file(c+"/file", "x")}, either},
		{"a file through a link to the host", []entry{link("l", c), file("l/evil", "x")}, either},
		{"a file in place of a link", []entry{link("l", c+"/file"), file("l", "x")}, either},
		{"a file through two links", []entry{link("a", c), link("b", "a/sub"),
			file("b/evil", "x")}, either},
		{"a file through a link that goes up", []entry{link("l", up+c), file("l/evil", "x")},
			either},
		{"a file through a link of /proc", []entry{link("l", "/proc/self/root"+c),
			file("l/evil", "x")}, either},
		{"a file through a descriptor", []entry{link("l", "/proc/self/cwd"), file("l/evil", "x")},
			either},
		{"a folder in place of a link", []entry{link("l", c), folder("l"), file("l/evil", "x")},
			either},
		{"a mode through a link", []entry{link("l", c+"/file"),
			{tar.Header{Name: "l", Typeflag: tar.TypeDir, Mode: 0o777}, ""}}, either},
		{"a link to a link that goes round", []entry{link("a", "b"), link("b", "a"),
			file("a/x", "x")}, bad},
	}
}

// oddEntries are archives of files that no program makes.
func (i *Image) oddEntries() []supply {
	c, up := i.Canary, strings.Repeat("../", 40)
	either, bad := []string{built, invalid}, []string{invalid}
	return []supply{
		{"a hard link to the host", []entry{hardLink("l", c+"/file"), file("l", "x")}, bad},
		{"a hard link that goes up", []entry{hardLink("l", up+c+"/file")}, bad},
		{"a hard link through a link", []entry{link("d", c), hardLink("l", "d/file")}, bad},
		{"a hard link to itself", []entry{hardLink("l", "l")}, bad},
		{"a hard link to a folder", []entry{folder("d"), hardLink("l", "d")},
			[]string{invalid, "denied"}},
		{"a file below a file", []entry{file("f", "x"), file("f/x", "x")}, bad},
		{"a folder below a device", []entry{special("d", tar.TypeChar), file("d/x", "x")}, bad},
		{"a device", []entry{special("d", tar.TypeBlock)}, either},
		{"one name 1,000 times, each of another kind", slices.Repeat([]entry{file("f", "x"),
			folder("f"), link("f", c), special("f", tar.TypeFifo)}, 250), either},
		{"a name of a line feed", []entry{file("a\nset_inode_field / mode 0\n", "x")}, either},
		{"a name of a quote", []entry{{tar.Header{Name: "a\"b", Typeflag: tar.TypeReg,
			Uid: 1 << 20}, ""}}, either},
		{"a name of quote and line feed, of a user that is none", []entry{{tar.Header{
			Name: "\"\nwrite /etc/shadow x", Typeflag: tar.TypeReg, Uid: 1 << 20}, ""}}, either},
		{"a name that is too long", []entry{file(strings.Repeat("a", 300), "x")}, bad},
		{"a folder deeper than a path", []entry{folder(strings.Repeat("a/", 5000))}, bad},
		{"a user below zero", []entry{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: -1}, ""}},
			bad},
		{"a user of 32 bits", []entry{{tar.Header{Name: "f", Typeflag: tar.TypeReg,
			Uid: 1<<32 - 1}, ""}}, bad},
		{"capabilities that are none", []entry{attributed("security.capability", "x")},
			[]string{invalid, "denied", "unavailable"}},
		{"attributes of no space", []entry{attributed("evil.x", "x")},
			[]string{invalid, "unavailable", "unsupported"}},
		{"an attribute of 200 KB", []entry{attributed("user.x", strings.Repeat("x", 200_000))},
			bad},
		{"an entry of no kind", []entry{{tar.Header{Name: "f", Typeflag: 'Z'}, ""}},
			[]string{invalid, "unsupported"}},
		{"the root as a link", []entry{link(".", "/etc"), file("evil", "x")}, either},
		{"an empty archive", nil, either},
	}
}

func attributed(name, value string) entry {
	return entry{tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o4755,
		PAXRecords: map[string]string{"SCHILY.xattr." + name: value}}, ""}
}

func digest(body string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(body))) }

func blobOf(body string) entry { return file("blobs/sha256/"+digest(body), body) }

func descriptor(kind, body string) map[string]any {
	return map[string]any{"mediaType": "application/vnd.oci.image." + kind,
		"size": len(body), "digest": "sha256:" + digest(body)}
}

func inJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // of our own maps
	}
	return string(text)
}

// oci is a layout of one image of one layer, in which change may lie.
func oci(layer []entry, change func(config, manifest map[string]any, layers []string)) []entry {
	packed, err := pack(layer)
	if err != nil {
		panic(err) // of our own entries
	}
	body := string(packed)
	config := map[string]any{"os": "linux", "architecture": runtime.GOARCH,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(body)}}}
	layers := []string{body}
	manifest := map[string]any{"schemaVersion": 2, "layers": []any{descriptor("layer.v1.tar",
		body)}, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
	change(config, manifest, layers)
	c := inJSON(config)
	if manifest["config"] == nil {
		manifest["config"] = descriptor("config.v1+json", c)
	}
	m := inJSON(manifest)
	blobs := []entry{blobOf(c), blobOf(m)}
	for i, l := range layers {
		b := blobOf(l)
		if i == 0 {
			b.Name = "blobs/sha256/" + digest(body) // also if it is another by now
		}
		blobs = append(blobs, b)
	}
	return layout(inJSON(map[string]any{"schemaVersion": 2, "manifests": []any{
		descriptor("manifest.v1+json", m)}}), blobs...)
}

func layout(index string, blobs ...entry) []entry {
	return append([]entry{file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), folder("blobs"),
		folder("blobs/sha256"), file("index.json", index)}, blobs...)
}
