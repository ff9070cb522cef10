package main

import (
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// peopleFlags say who vouches for people, and what they may do.
type peopleFlags struct {
	cfg       signin.Config
	ca, roles string // files
}

func (f *peopleFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.cfg.Issuer, "oidc-issuer", "",
		"URL of an OpenID Connect issuer, by which people sign in (sluice login)")
	flags.StringVar(&f.cfg.ClientID, "oidc-client-id", "",
		"client at the issuer for which ID tokens must be; one of this fleet alone")
	flags.StringVar(&f.roles, "oidc-roles", "",
		"file that gives groups and people grants, a line each; read again when it changes")
	flags.StringVar(&f.ca, "oidc-ca", "",
		"file with the authority that vouches for the issuer (default: those of this host)")
	flags.StringVar(&f.cfg.UsernameClaim, "oidc-username-claim", "email",
		"claim that names people: email, sub, preferred_username")
	flags.StringVar(&f.cfg.GroupsClaim, "oidc-groups-claim", "groups",
		"claim that names a person's groups")
	flags.StringArrayVar(&f.cfg.Scopes, "oidc-scope", nil,
		"scope that logins ask for, beside the usual ones that the issuer knows; repeat it for more")
}

// check refuses flags that don't go together.
func (f *peopleFlags) check() error {
	given := 0
	for _, v := range []string{f.cfg.Issuer, f.cfg.ClientID, f.roles} {
		if v != "" {
			given++
		}
	}
	if given != 0 && given != 3 {
		return usageError("--oidc-issuer, --oidc-client-id and --oidc-roles go together")
	}
	if given == 0 && f.ca != "" {
		return usageError("--oidc-ca needs --oidc-issuer")
	}
	return nil
}

// open returns who knows people; nil if nobody is to sign in. The issuer may be away.
func (f *peopleFlags) open(log *slog.Logger) (*signin.People, error) {
	if f.cfg.Issuer == "" {
		return nil, nil
	}
	cfg := f.cfg
	for file, into := range map[string]func([]byte){
		f.ca:    func(data []byte) { cfg.CA = append(data, '\n') }, // an empty file isn't none
		f.roles: func(data []byte) { cfg.Roles = string(data) },
	} {
		if file == "" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, errs.Wrap(errs.NotFound, err, "read a file of the sign-in").
				WithRemedy("give --oidc-roles and --oidc-ca files that the server can read")
		}
		into(data)
	}
	p, err := signin.New(cfg, signin.Deps{Log: log})
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "set up the sign-in of people")
	}
	return p, nil
}
