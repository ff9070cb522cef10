package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestParseService(t *testing.T) {
	for in, want := range map[string]api.Service{
		web: {Name: "web", Cmd: []string{"busybox", "httpd", "-f", "-p", "8080", "-h", "/srv"},
			HTTPPort: 8080, Check: &api.Check{Kind: "http", Path: "/"}},
		`name=a,cmd=sh -c 'echo a,b; sleep 1',env=X=1,env=Y=a=b,needs=b,needs=c,dir=/srv`: {
			Name: "a", Cmd: []string{"sh", "-c", "echo a,b; sleep 1"},
			Env: map[string]string{"X": "1", "Y": "a=b"}, Needs: []string{"b", "c"}, Dir: "/srv"},
		`name=a,cmd=x,check=http:81/ok,interval=0.5,timeout=2s,grace=3`: {Name: "a",
			Cmd: []string{"x"},
			Check: &api.Check{Kind: "http", Port: 81, Path: "/ok", Interval: 0.5,
				Timeout: 2, Grace: 3}},
		`name=a,cmd=x,check=tcp:5432`: {Name: "a", Cmd: []string{"x"},
			Check: &api.Check{Kind: "tcp", Port: 5432}},
		`name=a,cmd=x,check=exec:pg_isready -q`: {Name: "a", Cmd: []string{"x"},
			Check: &api.Check{Kind: "exec", Cmd: []string{"pg_isready", "-q"}}},
	} {
		if got, err := parseService(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v %v\nwant %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "web", "x=1", "name=a", "cmd=x", "name=a,cmd=", "name=a,cmd='x",
		"name=a,cmd=x,port=0", "name=a,cmd=x,check=ping",
		"name=a,cmd=x,check=http:x/", "name=a,cmd=x,env=X", "name=a,cmd=x,grace=soon",
		"junk,name=a,cmd=x"} {
		if _, err := parseService(in); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestServiceFile(t *testing.T) {
	d := &deps{stdin: strings.NewReader(`{"name":"a","cmd":["x"]}`)}
	if got, err := readServiceFile(d, "-"); err != nil || len(got) != 1 || got[0].Name != "a" {
		t.Fatalf("%+v %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "s.json")
	for text, ok := range map[string]bool{
		`[{"name":"a","cmd":["x"]},{"name":"b","cmd":["y"]}]`: true,
		`[{"name":"a","comand":["x"]}]`:                       false, ``: false,
		`nonsense`: false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readServiceFile(d, path); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestExitCodes has the whole table.
func TestExitCodes(t *testing.T) {
	for kind, want := range map[errs.Kind]int{errs.Invalid: 2, errs.NotFound: 3, errs.Conflict: 4,
		errs.Exists: 4, errs.Fenced: 4, errs.Unavailable: 5,
		errs.Denied: 6, errs.Exhausted: 7, errs.Corrupt: 1, errs.Internal: 1, errs.Unsupported: 1} {
		if got := exitCode(&api.Error{Code: string(kind)}); got != want {
			t.Errorf("%s from the API = %d, want %d", kind, got, want)
		}
		if got := exitCode(errs.New(kind, "x")); got != want {
			t.Errorf("%s of our own = %d, want %d", kind, got, want)
		}
	}
	for err, want := range map[error]int{
		&api.Error{Code: "not_found", Err: client.ErrNotRun}: exitNoCommand,
		&api.Error{Code: "denied", Err: client.ErrNotRun}:    exitNotRunnable,
		&api.Error{Code: "not_found"}:                        exitExecFailed,
		&api.Error{Code: "unavailable"}:                      exitExecFailed,
	} {
		var coded *codedError
		if got := execFailure(t.Context(), err); !errors.As(got, &coded) || coded.code != want {
			t.Errorf("exec: %v = %v, want %d", err, got, want)
		}
	}
}
