package s3blob

import (
	"context"
	"errors"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const keyFileRemedy = "write it as the AWS tools do: [default], aws_access_key_id = …, " +
	"aws_secret_access_key = …, and a session's aws_session_token = …"

// ReadKeyFile returns the key in the profile default of a file as the AWS tools have it. Denied if
// others than its owner can read it, NotFound if there is none, and Invalid if it holds no key.
func ReadKeyFile(ctx context.Context, path string) (Key, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Key{}, errs.Wrap(errs.NotFound, err,
			"there is no file with the store's credentials").WithRemedy(keyFileRemedy)
	case err != nil:
		return Key{}, errs.Wrap(errs.Denied, err, "look at the store's credentials")
	case st.Mode().Perm()&0o077 != 0:
		return Key{}, errs.New(errs.Denied,
			"file %s with the store's credentials can be read by others than its owner (mode %04o)",
			path, st.Mode().Perm()).
			WithRemedy("chmod 600 %s; if others may have read it, change the key at the store", path)
	}
	p, err := config.LoadSharedConfigProfile(ctx, "default",
		func(o *config.LoadSharedConfigOptions) {
			o.CredentialsFiles, o.ConfigFiles = []string{path}, []string{}
		})
	if err != nil {
		// what it says may quote a line
		return Key{}, errs.New(errs.Invalid, "%s has no profile [default] that can be read",
			path).WithRemedy(keyFileRemedy)
	}
	c := p.Credentials
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return Key{}, errs.New(errs.Invalid, "profile [default] of %s has no key, or half "+
			"of one", path).WithRemedy(keyFileRemedy)
	}
	return Key{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey,
		SessionToken: c.SessionToken}, nil
}
