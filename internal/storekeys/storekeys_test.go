package storekeys_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/s3role"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/storekeys"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secretOf = "secret-of-"

// keyFile is a file with the key of an account.
func keyFile(t *testing.T, path, account, secret string) {
	t.Helper()
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", account,
		secret)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// run runs a source until the test ends.
func run(t *testing.T, cfg storekeys.Config) *storekeys.Source {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := storekeys.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// TestTheFileIsReadAgain: the next key is taken and given out, once the store has taken it; what is
// wrong with the file changes nothing and is told, without a secret.
func TestTheFileIsReadAgain(t *testing.T) {
	server := versitygwtest.StartWithAccounts(t)
	for _, a := range []string{"first", "second"} {
		server.AddAccount(t, a, secretOf+a)
	}
	file := filepath.Join(t.TempDir(), "key")
	keyFile(t, file, "first", secretOf+"first")
	var log strings.Builder
	var mu sync.Mutex
	s := run(t, storekeys.Config{Store: server.URL("pool"), File: file,
		Every: 50 * time.Millisecond, Log: slog.New(slog.NewJSONHandler(locked{&mu, &log}, nil))})
	store, err := blobs.OpenWith(t.Context(), server.URL("pool"), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	write := func() {
		t.Helper()
		if _, err := store.Put(t.Context(), "k", nil); err != nil {
			t.Error(err)
		}
	}
	a, err := s.StoreCredentials(t.Context(), "w1", 0)
	if err != nil || a.AccessKey != "first" || a.SecretKey != secretOf+"first" || a.TTL != 0 {
		t.Fatalf("%d %s %v", a.Generation, a.AccessKey, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if same, err := s.StoreCredentials(short, "w1", a.Generation); err != nil || !same.Unchanged ||
		same.SecretKey != "" {
		t.Errorf("%+v, %v: a key is sent again", same.Unchanged, err)
	}
	for what, spoil := range map[string]func(){
		"SignatureDoesNotMatch": func() { keyFile(t, file, "second", "mistyped-secret") },
		"no profile [default]": func() {
			if err := os.WriteFile(file, []byte("[default\nmistyped-secret"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"mode 0644": func() {
			if err := os.Chmod(file, 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"there is no file": func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		keyFile(t, file, "first", secretOf+"first")
		eventually(t, "it is well", func() bool { return s.StoreKeys().Trouble == "" })
		spoil()
		eventually(t, what, func() bool { return strings.Contains(s.StoreKeys().Trouble, what) })
		if v := s.StoreKeys(); v.Generation != a.Generation || v.KeyID != "first" {
			t.Errorf("%s: %+v", what, v)
		}
		write()
	}
	keyFile(t, file, "second", secretOf+"second")
	b, err := s.StoreCredentials(t.Context(), "w1", a.Generation) // waits for it
	if err != nil || b.AccessKey != "second" || b.Generation <= a.Generation {
		t.Errorf("%d %s %v", b.Generation, b.AccessKey, err)
	}
	server.DeleteAccount(t, "first")
	write()
	if v := s.StoreKeys(); v.Trouble != "" || v.KeyID != "second" {
		t.Errorf("%+v", v)
	}
	next, err := storekeys.New(t.Context(), storekeys.Config{Store: server.URL("pool"), File: file})
	if err != nil || next.StoreKeys().Generation <= b.Generation {
		t.Errorf("the next server has the generation %+v, %v", next.StoreKeys(), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(log.String(), "mistyped") ||
		strings.Contains(log.String(), secretOf) || strings.Count(log.String(), "WARN") != 4 {
		t.Errorf("the log: %s", log.String())
	}
}

type locked struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestAKeyThatIsGoneBeforeTheNextIsRead: who asks anew gets what the file has now, and not what it
// had at the last look.
func TestAKeyThatIsGoneBeforeTheNextIsRead(t *testing.T) {
	server := versitygwtest.StartWithAccounts(t)
	server.AddAccount(t, "second", secretOf+"second")
	file := filepath.Join(t.TempDir(), "key")
	keyFile(t, file, "first", secretOf+"first")
	s, err := storekeys.New(t.Context(), storekeys.Config{Store: server.URL("pool"), File: file,
		Log: slog.New(slog.DiscardHandler)}) // that doesn't run, so that nothing looks by itself
	if err != nil {
		t.Fatal(err)
	}
	keyFile(t, file, "second", secretOf+"second")
	if c, err := s.StoreCredentials(t.Context(), "w1", 0); err != nil || c.AccessKey != "second" {
		t.Errorf("%s, %v", c.AccessKey, err)
	}
}

// TestConfigsThatCantWork are refused when the server starts, with a remedy.
func TestConfigsThatCantWork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	keyFile(t, file, "a", "b")
	open := file + ".open"
	keyFile(t, open, "a", "b")
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	half := file + ".half"
	if err := os.WriteFile(half, []byte("[default]\nregion = a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const pool, role = "s3://bucket/pool?endpoint=http://127.0.0.1:1", "arn:aws:iam::1:role/w"
	for what, cfg := range map[string]storekeys.Config{
		"takes no credentials": {Store: "file:///pool", File: file},
		"mode 0640":            {Store: pool, File: open},
		"half of one":          {Store: pool, File: half},
		"there is no file":     {Store: pool, File: file + ".none"},
		"no ARN of a role":     {Store: pool, Role: s3role.Role{ARN: "w", Term: time.Hour}},
		"not between":          {Store: pool, Role: s3role.Role{ARN: role, Term: time.Minute}},
		"without --store-role-arn": {Store: pool,
			Role: s3role.Role{Endpoint: "http://127.0.0.1:1", Term: time.Hour}},
	} {
		_, err := storekeys.New(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), what) || errs.RemedyOf(err) == "" {
			t.Errorf("%s: %v, remedy %q", what, err, errs.RemedyOf(err))
		}
	}
	s, err := storekeys.New(t.Context(), storekeys.Config{Store: "file:///pool"})
	if err != nil || s.StoreKeys().Needed {
		t.Fatalf("%+v, %v", s.StoreKeys(), err)
	}
	if c, err := s.StoreCredentials(t.Context(), "w1", 0); err != nil || !c.None {
		t.Errorf("a directory: %v, %v", c.None, err)
	}
	s, err = storekeys.New(t.Context(), storekeys.Config{Store: pool, File: file, Withhold: true,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.StoreCredentials(t.Context(), "w1", 0)
	if err != nil || !c.Own || c.SecretKey != "" {
		t.Errorf("withheld: %v, %v", c.Own, err)
	}
}

// sts answers as an STS does, and keeps what it was asked.
type sts struct {
	mu     sync.Mutex
	asked  []map[string]string
	refuse string // code; "": it gives sessions
}

func (s *sts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	form := map[string]string{}
	if r.ParseForm() == nil {
		for name := range r.PostForm {
			form[name] = r.PostForm.Get(name)
		}
	}
	form["signed by"] = r.Header.Get("Authorization")
	s.asked = append(s.asked, form)
	w.Header().Set("Content-Type", "text/xml")
	if s.refuse != "" {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code>"+
			"<Message>not this one</Message></Error></ErrorResponse>", s.refuse)
		return
	}
	fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		len(s.asked), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

// TestSessionsOfARole are asked for under the worker's name and with a policy that lets it do no
// more than a worker needs, one at a time; what STS refuses is told.
func TestSessionsOfARole(t *testing.T) {
	says := &sts{}
	server := httptest.NewServer(says)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "key")
	keyFile(t, file, "servers", "secret")
	const role = "arn:aws-cn:iam::1:role/w"
	s, err := storekeys.New(t.Context(), storekeys.Config{
		Store: "s3://bucket/a/pool?endpoint=http://127.0.0.1:1", File: file,
		Log:  slog.New(slog.DiscardHandler),
		Role: s3role.Role{ARN: role, Endpoint: server.URL, Term: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	get := func(w fleet.WorkerID) (fleet.StoreCredentials, error) {
		return s.StoreCredentials(t.Context(), w, 0)
	}
	c, err := get("w1")
	if err != nil || c.AccessKey != "ASIA1" || c.SessionToken != "t" || c.TTL < 59*time.Minute ||
		c.TTL > time.Hour {
		t.Fatalf("%s, %s, %v", c.AccessKey, c.TTL, err)
	}
	asked := says.asked[0]
	if asked["RoleArn"] != role || asked["RoleSessionName"] != "w1" ||
		asked["DurationSeconds"] != "3600" || !strings.Contains(asked["signed by"], "servers/") {
		t.Errorf("%+v", asked)
	}
	var got, want any
	const policy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],
  "Resource":["arn:aws-cn:s3:::bucket/a/pool/disks/*"]},
 {"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws-cn:s3:::bucket"],
  "Condition":{"StringLike":{"s3:prefix":"a/pool/disks/*"}}},
 {"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws-cn:s3:::bucket"],
  "Condition":{"Null":{"s3:prefix":"true"}}}]}`
	if json.Unmarshal([]byte(asked["Policy"]), &got) != nil ||
		json.Unmarshal([]byte(policy), &want) != nil || !reflect.DeepEqual(got, want) ||
		len(asked["Policy"]) > 2048 { // AWS takes no longer one
		t.Errorf("the policy is %s", asked["Policy"])
	}
	if _, err := get("w1"); !errs.Is(err, errs.Unavailable) || len(says.asked) != 1 {
		t.Errorf("a second session at once: %v", err)
	}
	if c, err := get("w"); err != nil || says.asked[1]["RoleSessionName"] != "worker-w" {
		t.Errorf("%s, %v: STS takes no name of one character", c.AccessKey, err)
	}
	says.mu.Lock()
	says.refuse = "AccessDenied"
	says.mu.Unlock()
	_, err = get("w2")
	if !errs.Is(err, errs.Unavailable) ||
		!strings.Contains(err.Error(), "AccessDenied: not this one") ||
		!strings.Contains(errs.RemedyOf(err), "trust policy") ||
		!strings.Contains(s.StoreKeys().Trouble, "AccessDenied") {
		t.Errorf("%v, remedy %q, %+v", err, errs.RemedyOf(err), s.StoreKeys())
	}
	server.Close()
	if _, err = get("w3"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("STS is away: %v", err)
	}
}
