package s3blob_test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// gets answers each read of a whole object as next says, and counts them.
func gets(t *testing.T, header http.Header, next func(n int) (tag, body string)) (
	endpoint string, asked *int) {
	asked = new(int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked++
		tag, body := next(*asked)
		for name, values := range header {
			w.Header()[name] = values
		}
		w.Header().Set("ETag", strconv.Quote(tag))
		w.Header().Set("Content-Range",
			fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func digest(body string) string { return fmt.Sprintf("%x", md5.Sum([]byte(body))) }

// TestATornAnswerIsAskedAgain: the ETag of one version with the body of another is no version. What
// comes next is, if it fits; TestEachFalseAnswer has one that never does.
func TestATornAnswerIsAskedAgain(t *testing.T) {
	endpoint, asked := gets(t, nil, func(n int) (string, string) {
		if n%2 == 1 {
			return digest("old"), "new"
		}
		return digest("new"), "new"
	})
	s := open(t, endpoint, "")
	for i := 1; i <= 3; i++ {
		o, err := s.Get(t.Context(), "head", blob.All())
		if err != nil || string(o.Data) != "new" || string(o.ETag) != digest("new") ||
			*asked != 2*i {
			t.Errorf("%q of %q after %d requests: %v", o.Data, o.ETag, *asked, err)
		}
	}
}

// TestADigestOnceIsADigestAlways: a store whose ETags were MD5s isn't believed less because one
// was not; also if the first that was came in place of a torn answer.
func TestADigestOnceIsADigestAlways(t *testing.T) {
	type answer struct{ tag, body string }
	for _, first := range [][]answer{
		{{digest("a"), "a"}},
		{{digest("z"), "a"}, {digest("a"), "a"}},
	} {
		answers := append(first,
			answer{digest("odd"), "b"}, answer{digest("odd"), "b"}, // the same twice: believed
			answer{digest("a"), "c"}, answer{digest("a"), "d"}) // and still no version
		endpoint, asked := gets(t, nil, func(n int) (string, string) {
			return answers[n-1].tag, answers[n-1].body
		})
		s := open(t, endpoint, "")
		for _, want := range []string{"a", "b"} {
			o, err := s.Get(t.Context(), "head", blob.All())
			if err != nil || string(o.Data) != want {
				t.Errorf("%q: %v", o.Data, err)
			}
		}
		o, err := s.Get(t.Context(), "head", blob.All())
		if !errs.Is(err, errs.Unavailable) || errs.RemedyOf(err) == "" || *asked != len(answers) {
			t.Errorf("%q after %d requests: %v", o.Data, *asked, err)
		}
	}
}

// TestETagsThatLookLikeDigests are those of stores that encrypt, and of some always. They cost one
// request at most, once.
func TestETagsThatLookLikeDigests(t *testing.T) {
	alike := digest("something else")
	large := string(bytes.Repeat([]byte("x"), 1<<20+1))
	for _, c := range []struct {
		name, tag, body string
		header          http.Header
		asked           int // by two reads
	}{
		{"of an upload in parts", alike + "-2", "body", nil, 2},
		{"of no hex", "zz" + alike[2:], "body", nil, 2},
		{"opaque", alike, "body", nil, 3},
		{"an MD5", digest("body"), "body", nil, 2},
		{"too large to be replaced in place", alike, large, nil, 2},
		{"encrypted by the store's key", alike, "body",
			http.Header{"X-Amz-Server-Side-Encryption": {"aws:kms"}}, 2},
		{"encrypted by one's own key", alike, "body",
			http.Header{"X-Amz-Server-Side-Encryption-Customer-Algorithm": {"AES256"}}, 2},
	} {
		endpoint, asked := gets(t, c.header, func(int) (string, string) { return c.tag, c.body })
		s := open(t, endpoint, "")
		for range 2 {
			o, err := s.Get(t.Context(), "head", blob.All())
			if err != nil || string(o.Data) != c.body || string(o.ETag) != c.tag {
				t.Errorf("%s: %d bytes of %q: %v", c.name, len(o.Data), o.ETag, err)
			}
		}
		if *asked != c.asked {
			t.Errorf("%s: %d requests by two reads, want %d", c.name, *asked, c.asked)
		}
	}
}
