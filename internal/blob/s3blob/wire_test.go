package s3blob_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/s3faulttest"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// wireOps are the requests of a store. Each one is right, so that a false answer to it is false
// whatever it says.
var wireOps = []struct {
	name string
	op   s3faulttest.Op
	do   func(ctx context.Context, s *s3blob.Store, etag blob.ETag) error
}{
	{"get", s3faulttest.Get, func(ctx context.Context, s *s3blob.Store, _ blob.ETag) error {
		o, err := s.Get(ctx, "dir/there", blob.All())
		return same(err, string(o.Data), there, o.Size)
	}},
	{"get the end", s3faulttest.Get, func(ctx context.Context, s *s3blob.Store, _ blob.ETag) error {
		o, err := s.Get(ctx, "dir/there", blob.Range{Offset: -3})
		return same(err, string(o.Data), there[len(there)-3:], o.Size)
	}},
	{"get nothing", s3faulttest.Get, func(ctx context.Context, s *s3blob.Store, _ blob.ETag) error {
		o, err := s.Get(ctx, "dir/there", blob.Range{})
		return same(err, string(o.Data), "", o.Size)
	}},
	{"put", s3faulttest.Put, func(ctx context.Context, s *s3blob.Store, _ blob.ETag) error {
		_, err := s.Put(ctx, "dir/new", []byte("new"))
		return err
	}},
	{"put if absent", s3faulttest.Put,
		func(ctx context.Context, s *s3blob.Store, _ blob.ETag) error {
			_, err := s.PutIfAbsent(ctx, "dir/absent", []byte("new"))
			return err
		}},
	{"put if match", s3faulttest.Put,
		func(ctx context.Context, s *s3blob.Store, etag blob.ETag) error {
			_, err := s.PutIfMatch(ctx, "dir/matched", []byte("new"), etag)
			return err
		}},
	{"delete", s3faulttest.Delete, func(ctx context.Context, s *s3blob.Store,
		_ blob.ETag) error {
		return s.Delete(ctx, "dir/old")
	}},
	{"list", s3faulttest.List, func(ctx context.Context, s *s3blob.Store, _ blob.ETag) error {
		var keys []string
		err := s.List(ctx, "dir/", "",
			func(e blob.Entry) bool { keys = append(keys, e.Key); return true })
		if err == nil && strings.Join(keys, " ") != "dir/matched dir/old dir/there" {
			err = errs.New(errs.Internal, "listed %v", keys)
		}
		return err
	}},
}

const there = "what is there"

func same(err error, got, want string, size int64) error {
	if err == nil && (got != want || size != int64(len(there))) {
		return errs.New(errs.Internal, "got %q of %d, want %q", got, size, want)
	}
	return err
}

// TestEachFalseAnswer puts every kind of answer on the wire, for every request. None is believed:
// not as done, not as missing, not as a lost race, not as a wrong request. What comes instead names
// the cause and a remedy.
func TestEachFalseAnswer(t *testing.T) {
	server := versitygwtest.Start(t)
	for _, k := range s3faulttest.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			for _, op := range wireOps {
				if k.Ops&op.op != 0 && !k.Silent && (!k.Whole || op.name == "get") {
					falseAnswer(t, server, k, op.name, op.do)
				}
			}
		})
	}
}

func falseAnswer(t *testing.T, server *versitygwtest.Server, k s3faulttest.Kind, name string,
	do func(context.Context, *s3blob.Store, blob.ETag) error) {
	proxy := s3faulttest.Start(t, strings.TrimPrefix(server.Endpoint, "http://"))
	s := open(t, proxy.Endpoint, versitygwtest.Prefix())
	var etag blob.ETag
	for key, body := range map[string]string{"dir/there": there, "dir/matched": "old",
		"dir/old": "old"} {
		tag, err := s.Put(t.Context(), key, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if key == "dir/matched" {
			etag = tag
		}
	}
	proxy.Break(k, nil)
	limit := time.Minute
	if k.Says == "" && !k.Harmless { // what doesn't come
		limit = 300 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := do(ctx, s, etag)
	switch kind := errs.KindOf(err); {
	case k.Harmless:
		if err != nil && kind != errs.Conflict || kind == errs.Conflict && k.Name != "done twice" {
			t.Errorf("%s: %v", name, err)
		}
		return
	case kind != errs.Unavailable && kind != errs.Denied && kind != errs.Exhausted:
		t.Errorf("%s: kind %q: %v", name, kind, err)
	case !strings.Contains(fmt.Sprint(err), k.Says):
		t.Errorf("%s: the error doesn't name %q: %v", name, k.Says, err)
	case strings.Contains(err.Error(), "HostID") ||
		strings.Contains(err.Error(), "operation error"):
		t.Errorf("%s: noise: %v", name, err)
	}
	t.Logf("%s: %s: %v; try: %s", name, errs.KindOf(err), err, errs.RemedyOf(err))
	proxy.Heal()
	if strings.Contains(name, "put if") { // it may have been done, or not
		return
	}
	if err := do(t.Context(), s, etag); err != nil && k.Says != "" {
		t.Errorf("%s, when all is well again: %v", name, err)
	}
}
