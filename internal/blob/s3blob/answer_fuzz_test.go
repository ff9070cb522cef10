package s3blob

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// FuzzAnswer: whatever comes over the wire is what S3 promises, or is refused, in words that can be
// shown.
func FuzzAnswer(f *testing.F) {
	f.Add(uint8(0), 206, `"e"`, "application/octet-stream", "bytes 0-2/3", "", []byte("abc"),
		int64(0), int64(-1))
	f.Add(uint8(0), 200, `W/"e"`, "", "", "gzip", []byte("abc"), int64(1), int64(1))
	f.Add(uint8(1), 200, `"e"`, "", "", "", []byte(""), int64(0), int64(0))
	f.Add(uint8(1), 200, "", "text/html", "", "", []byte("<html>"), int64(0), int64(0))
	f.Add(uint8(2), 204, "", "", "", "", []byte(""), int64(0), int64(0))
	f.Add(uint8(3), 200, "", "application/xml", "", "",
		[]byte("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
		int64(0), int64(0))
	f.Add(uint8(3), 404, "", "", "", "",
		[]byte("<Error><Code>NoSuchKey</Code><Message>m</Message></Error>"), int64(-3), int64(0))
	f.Fuzz(func(t *testing.T, op uint8, status int, tag, contentType, contentRange, encoding string,
		body []byte, offset, length int64) {
		name := []string{opGet, opPut, opDelete, opList}[op%4]
		resp := &http.Response{
			StatusCode: status, Header: http.Header{}, ProtoMajor: 1,
			ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
		}
		for header, value := range map[string]string{"ETag": tag, "Content-Type": contentType,
			"Content-Range": contentRange, "Content-Encoding": encoding} {
			if value != "" {
				resp.Header.Set(header, value)
			}
		}
		if r := check(name, resp); r != nil {
			refusalHolds(t, r)
			return
		}
		if status < 200 || status > 299 {
			t.Fatalf("%s: status %d is a success", name, status)
		}
		rest, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case opPut:
			if etag(tag) == "" || len(bytes.TrimSpace(body)) > 0 || status != 200 {
				t.Fatalf("done: %d %q %q", status, tag, body)
			}
		case opGet:
			readHolds(t, blob.Range{Offset: offset, Length: length}, contentRange, rest)
		case opList:
			if rootOf(rest) != "ListBucketResult" {
				t.Fatalf("a listing: %q", rest)
			}
		}
	})
}

func refusalHolds(t *testing.T, r *refusal) {
	t.Helper()
	text := r.Error()
	if text == "" || len(text) > 6*utf8.UTFMax*maxWords || !utf8.ValidString(text) {
		t.Fatalf("words of %d bytes: %q", len(text), text)
	}
	for _, c := range text {
		if unicode.IsControl(c) {
			t.Fatalf("words with a control character: %q", text)
		}
	}
	kind := r.kind()
	if r.code == "" && kind != errs.Unavailable || r.why != "" && kind != errs.Unavailable {
		t.Fatalf("kind %q of %q", kind, text)
	}
}

// readHolds: what is read is the range that was asked for, of what the answer says that there is.
func readHolds(t *testing.T, r blob.Range, contentRange string, body []byte) {
	t.Helper()
	o, err := readAnswer(r, contentRange, int64(len(body)), bytes.NewReader(body))
	if err != nil {
		return
	}
	if _, count, err := r.Resolve(o.Size); err != nil || count != int64(len(o.Data)) {
		t.Fatalf("%+v of %q in %d bytes: %d bytes of %d, %v", r, contentRange, len(body),
			len(o.Data), o.Size, err)
	}
}

// FuzzListing: over any pages the keys that are let through have the prefix, and grow; and a
// listing ends.
func FuzzListing(f *testing.F) {
	f.Add("a/", "a/1\na/2\n\na/3", "t\n", true)
	f.Add("", "b\na", "", false)
	f.Fuzz(func(t *testing.T, prefix, keys, tokens string, truncated bool) {
		l := listing{prefix: prefix, tokens: map[string]bool{}}
		next := bytes.Split([]byte(tokens), []byte("\n"))
		last, pages := "", 0
		for _, page := range bytes.Split([]byte(keys), []byte("\n\n")) {
			out := &s3.ListObjectsV2Output{IsTruncated: &truncated}
			for i, key := range bytes.Split(page, []byte("\n")) {
				out.Contents = append(out.Contents,
					types.Object{Key: aws.String(string(key)), Size: aws.Int64(int64(i))})
			}
			if pages < len(next) {
				out.NextContinuationToken = aws.String(string(next[pages]))
			}
			if fault := l.page(out); fault != "" {
				return
			}
			for i, o := range out.Contents {
				if *o.Key <= last || len(*o.Key) < len(prefix) || (*o.Key)[:len(prefix)] != prefix {
					t.Fatalf("page %d has the key %s: %q after %q", pages,
						strconv.Itoa(i), *o.Key, last)
				}
				last = *o.Key
			}
			pages++
		}
	})
}
