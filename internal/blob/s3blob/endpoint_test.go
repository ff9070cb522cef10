package s3blob_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestAnEndpointWithAPath: it is kept in front of the bucket.
func TestAnEndpointWithAPath(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.Header().Set("ETag", `"1"`)
	}))
	t.Cleanup(server.Close)
	if _, err := open(t, server.URL+"/s3/api", "pool").Put(t.Context(), "k", nil); err != nil ||
		asked != "/s3/api/bucket/pool/k" {
		t.Errorf("%q: %v", asked, err)
	}
}

// TestAClockThatIsOff: the store says what time it is, and is signed for by that. What a page says
// is no clock.
func TestAClockThatIsOff(t *testing.T) {
	const ahead = 26 * time.Hour
	page, refused := false, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page {
			w.Header().Set("Date", time.Now().Add(-30*24*time.Hour).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
			return
		}
		now := time.Now().Add(ahead)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		if at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date")); err != nil ||
			now.Sub(at).Abs() > 15*time.Minute {
			refused++
			w.WriteHeader(http.StatusForbidden)
			_,
				_ = w.Write(
				[]byte(
					"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"))
			return
		}
		w.Header().Set("ETag", `"1"`)
	}))
	t.Cleanup(server.Close)
	s := open(t, server.URL, "")
	put := func() error { _, err := s.Put(t.Context(), "k", nil); return err }
	if err := put(); !errs.Is(err, errs.Unavailable) ||
		!strings.Contains(errs.RemedyOf(err), "clock") {
		t.Errorf("kind %q, remedy %q: %v", errs.KindOf(err), errs.RemedyOf(err), err)
	}
	if err := put(); err != nil {
		t.Error(err)
	}
	page = true
	if err := put(); !errs.Is(err, errs.Unavailable) {
		t.Error(err)
	}
	page = false
	if err := put(); err != nil || refused != 1 {
		t.Errorf("refused %d times: %v", refused, err)
	}
}
