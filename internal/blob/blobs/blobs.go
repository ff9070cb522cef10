// Package blobs opens object stores by URL. It is the one place that knows all drivers.
//
//	file:///absolute/directory
//	s3://bucket/prefix?endpoint=http://host:port&region=…&path_style=true
//	mem://            (a new, empty one each time)
//
// A disk URL is a store URL whose path goes on with the disk's path: file:///srv/pool/disks/m1.
// Query parameters belong to the store, but for log, which says in which second store the disk's
// log is.
package blobs

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path"
	"strings"
	"unicode"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const disksElement = "/disks/"

// Open opens the object store at a store URL. It makes no request to a remote store; see Probe.
func Open(ctx context.Context, storeURL string) (blob.Store, error) {
	return OpenWith(ctx, storeURL, nil)
}

// OpenWith is Open with the keys for a store that needs one; nil: those that Open finds.
func OpenWith(ctx context.Context, storeURL string, keys s3blob.Keys) (blob.Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "open store")
	}
	u, err := parseExact(storeURL)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.RawQuery != "" {
			return nil, errs.New(errs.Invalid, "bad store URL %s", u.Redacted()).
				WithRemedy("write file:///absolute/directory, with three slashes")
		}
		return fileblob.Open(u.Path)
	case "s3":
		cfg, err := s3Config(u, keys)
		if err != nil {
			return nil, err
		}
		return s3blob.New(cfg)
	default: // "mem"; parse lets no other through
		return memblob.New(), nil
	}
}

// S3 returns how the store at a URL is reached; ok: it is one that needs keys.
func S3(storeURL string) (cfg s3blob.Config, ok bool, err error) {
	u, err := parseExact(storeURL)
	if err != nil || u.Scheme != "s3" {
		return cfg, false, err
	}
	cfg, err = s3Config(u, nil)
	return cfg, true, err
}

// HostKeys returns the keys of this host: of the environment, or what the SDK's usual chain finds.
func HostKeys() s3blob.Keys {
	return s3blob.OwnKeys(s3blob.Config{AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"),
		SecretKey:    os.Getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken: os.Getenv("AWS_SESSION_TOKEN")})
}

// s3Config leaves the environment's key alone if there are others: half of one would be an error.
func s3Config(u *url.URL, keys s3blob.Keys) (s3blob.Config, error) {
	getenv := os.Getenv
	if keys != nil {
		getenv = func(name string) string {
			switch name {
			case "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN":
				return ""
			}
			return os.Getenv(name)
		}
	}
	cfg, err := s3blob.ParseURL(u, getenv)
	cfg.Keys = keys
	return cfg, err
}

// LacksCredentials reports whether a store could not be asked because this process has no
// credentials for it.
func LacksCredentials(err error) bool {
	var none *s3blob.CredentialsError
	return errors.As(err, &none)
}

func parse(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "bad store URL")
	}
	switch u.Scheme {
	case "file", "s3", "mem":
		return u, nil
	default:
		return nil, errs.New(errs.Invalid, "store URL %q has an unknown scheme", s).
			WithRemedy("use file:///directory or s3://bucket/prefix")
	}
}

// parseExact is parse for what a user writes. It refuses a URL of which a part would be left out,
// or read as another place than the one that is written.
func parseExact(s string) (*url.URL, error) {
	u, err := parse(s)
	if err != nil {
		return nil, err
	}
	refuse := func(what, remedy string) error {
		return errs.New(errs.Invalid, "bad URL %q: %s", s, what).WithRemedy("%s", remedy)
	}
	switch {
	case strings.Contains(s, "#"):
		return nil, refuse("it has a #, and what follows would be left out",
			"choose a name without #")
	case u.ForceQuery:
		return nil, refuse("it ends with a ?", "leave the ? out")
	case strings.Contains(strings.ToUpper(u.EscapedPath()), "%2F"):
		return nil, refuse("%2F would be read as a slash",
			"write / where one is meant, and choose names without")
	case strings.ContainsFunc(u.Path, unicode.IsControl):
		return nil, refuse("a name in it has a control character",
			"choose names without, and look for a stray line break")
	}
	if u.Scheme != "s3" {
		return u, nil // the system reads the path of a directory
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/")
	if inner != "" && "/"+inner != path.Clean("/"+inner) {
		return nil, refuse("object stores don't resolve . and .. and //",
			"write the path that is meant: "+path.Clean("/"+inner))
	}
	return u, nil
}

// SplitDiskURL splits a disk URL into the URL of its store and the disk's path in there. The path
// begins at the last "/disks/"; in a URL without one, it is the last element.
func SplitDiskURL(diskURL string) (poolURL, diskPath string, err error) {
	u, err := parseExact(diskURL)
	if err != nil {
		return "", "", err
	}
	whole := strings.TrimRight(u.Path, "/")
	at := strings.LastIndex(whole, disksElement)
	if at < 0 {
		at = strings.LastIndexByte(whole, '/')
	}
	if at < 0 || blob.CheckKey(whole[at+1:]) != nil {
		return "", "", errs.New(errs.Invalid, "%q is not a disk URL", diskURL).
			WithRemedy(
				"write a store URL and the disk's path, such as s3://bucket/prefix/disks/<id>")
	}
	diskPath = whole[at+1:]
	u.Path, u.RawPath = whole[:at], ""
	if u.Scheme == "file" && u.Path == "" {
		u.Path = "/"
	}
	return u.String(), diskPath, nil
}

// SplitLogURL splits the parameter log off a disk URL: the URL of the store of the disk's log,
// without a slash at the end; empty if there is none. Of several parameters in the log's own URL, &
// is written %26.
func SplitLogURL(diskURL string) (rest, logURL string, err error) {
	u, err := parseExact(diskURL)
	if err != nil {
		return "", "", err
	}
	q := u.Query()
	if !q.Has("log") {
		return diskURL, "", nil
	}
	logURL = strings.TrimRight(q.Get("log"), "/")
	l, err := parseExact(logURL)
	if err != nil || l.Scheme == "mem" || l.Host == "" && l.Path == "" || l.Query().Has("log") ||
		len(q["log"]) != 1 {
		return "", "", errs.New(errs.Invalid, "%q is not the URL of a log store", q.Get("log")).
			WithRemedy(
				"write a store URL, such as ?log=s3://bucket/prefix or ?log=file:///directory; & in it as %%26")
	}
	q.Del("log")
	u.RawQuery = q.Encode()
	return u.String(), logURL, nil
}

// Canonical returns a store URL as it is always written, so that two ways to write one are alike.
// One that can't be parsed stays as it is.
func Canonical(storeURL string) string {
	u, err := parse(storeURL)
	if err != nil {
		return storeURL
	}
	u.Path, u.RawPath = path.Clean("/"+u.Path), ""
	if u.Path == "/" && u.Scheme != "file" {
		u.Path = ""
	}
	u.RawQuery = u.Query().Encode()
	return u.String()
}

// JoinDiskURL is the inverse of SplitDiskURL for every disk path that begins with "disks/" or is
// one element.
func JoinDiskURL(poolURL, diskPath string) (string, error) {
	u, err := parse(poolURL)
	if err != nil {
		return "", err
	}
	if err := blob.CheckKey(diskPath); err != nil {
		return "", err
	}
	u.Path, u.RawPath = path.Join("/", u.Path, diskPath), ""
	return u.String(), nil
}

// Above returns the URLs of the places that a store's own place lies in, itself included and
// nearest first, as far as each can be a disk's: with a path that is not empty.
func Above(storeURL string) ([]string, error) {
	u, err := parseExact(storeURL)
	if err != nil {
		return nil, err
	}
	var all []string
	for at := path.Clean("/" + u.Path); at != "/"; at = path.Dir(at) {
		u.Path, u.RawPath = at, ""
		all = append(all, u.String())
	}
	return all, nil
}
