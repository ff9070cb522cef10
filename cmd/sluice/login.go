package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/signin/login"
)

const loginHelp = `Sign in to a server by its OpenID Connect issuer. A browser is opened at the issuer, or
its URL printed; with --device a code is printed, to be entered in a browser on any
host. What the issuer gives is kept in a file that only you can read, below
XDG_CONFIG_HOME or ~/.config, and renewed by itself where the issuer allows it.

From then on commands call that server as you, unless --dir, SLUICE_URL or SLUICE_DIR
name another fleet. A token in SLUICE_TOKEN goes before it.
`

type loginFlags struct {
	server    string
	device    bool
	noBrowser bool
	port      int
}

func newLoginCommand(d *deps) *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login [--server URL] [--device]",
		Short: "Sign in to a server by its OpenID Connect issuer",
		Long:  loginHelp + exitTable,
		Example: `  sluice login --server https://sluice.example.com:7500 --ca-file ca.pem
  sluice login --device`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return d.login(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.server, "server", "",
		"URL of the server (default: SLUICE_URL, or where you signed in last)")
	cmd.Flags().BoolVar(&f.device, "device", false, "sign in with a browser on another host")
	cmd.Flags().BoolVar(&f.noBrowser, "no-browser", false, "print the URL, and open no browser")
	cmd.Flags().IntVar(&f.port, "port", 0,
		"port of loopback to which the issuer leads back, for issuers that must know it (default: any)")
	return cmd
}

func (d *deps) login(ctx context.Context, f loginFlags) error {
	if f.port < 0 || f.port > 65535 {
		return usageError("--port %d is not from 0 to 65535", f.port)
	}
	server, ca, err := d.signInServer(f.server)
	if err != nil {
		return err
	}
	stranger, err := client.New(server, "", client.WithCA(ca))
	if err != nil {
		return err
	}
	told, err := stranger.SignIn(ctx)
	if err != nil {
		return err
	}
	offer := signin.Offer{Issuer: told.Issuer, ClientID: told.ClientID, Scopes: told.Scopes,
		CA: []byte(told.CA)}
	tokens, err := d.signIn(ctx, offer, f)
	if err != nil {
		return err
	}
	if err := d.sessions().Save(login.Session{Server: server, ServerCA: ca, Offer: offer,
		Tokens: tokens}); err != nil {
		return err
	}
	c, err := d.sessionClient(server)
	if err != nil {
		return err
	}
	me, err := c.WhoAmI(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.stderr, "signed in to %s\n", server)
	return d.result(me, func(w io.Writer) error { return printCaller(w, me) })
}

// signIn has somebody sign in at the issuer.
func (d *deps) signIn(ctx context.Context, o signin.Offer, f loginFlags) (login.Tokens, error) {
	if f.device {
		return login.Device(ctx, o, func(url, code string) error {
			_, err := fmt.Fprintf(d.stderr, "open %s\nand enter the code %s\n", url, code)
			return err
		})
	}
	return login.Browser(ctx, o, f.port, func(ctx context.Context, url string) error {
		if _, err := fmt.Fprintf(d.stderr, "open this in a browser on this host:\n%s\n",
			url); err != nil {
			return err
		}
		if !f.noBrowser {
			d.openBrowser(ctx, url)
		}
		return nil
	})
}

// openBrowser opens a page where there is a desktop. Whoever has none has the page's URL.
func (d *deps) openBrowser(ctx context.Context, url string) {
	if d.env("DISPLAY") == "" && d.env("WAYLAND_DISPLAY") == "" {
		return
	}
	_ = exec.CommandContext(ctx, "xdg-open", url).Run()
}

func newLogoutCommand(d *deps) *cobra.Command {
	server := ""
	cmd := &cobra.Command{
		Use:   "logout [--server URL]",
		Short: "Forget a sign-in on this host",
		Long: `Forget a sign-in on this host. The issuer isn't asked to end its own session with your
browser, and who has a copy of the file that is removed isn't stopped: see "Something
leaked" in docs/security.md.
` + exitTable,
		Example: "  sluice logout",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			url, _, err := d.signInServer(server)
			if err != nil {
				return err
			}
			if err := d.sessions().Remove(url); err != nil {
				return err
			}
			return d.result(map[string]string{"server": url, "state": "signed out"},
				func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "signed out of %s\n", url)
					return err
				})
		},
	}
	cmd.Flags().StringVar(&server, "server", "",
		"URL of the server (default: SLUICE_URL, or where you signed in last)")
	return cmd
}

func newWhoamiCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show how the server knows you, what you may do, and until when",
		Long: `Show how the server knows you, what you may do, and until when. Of who has signed in it
shows the groups, and the lines of the server's roles by which they count.
` + exitTable,
		Example: "  sluice whoami",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			me, err := c.WhoAmI(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(me, func(w io.Writer) error { return printCaller(w, me) })
		}),
	}
}

func printCaller(w io.Writer, me api.Caller) error {
	if _, err := fmt.Fprintln(w, me.Name); err != nil {
		return err
	}
	fields := [][2]string{{"kind", me.Kind}}
	if me.Token != "" {
		fields = append(fields, [2]string{"token", me.Token})
	}
	if p := me.Person; p != nil {
		fields = append(fields, [2]string{"issuer", p.Issuer}, [2]string{"subject", p.Subject},
			[2]string{"groups", strings.Join(me.Groups, ", ")},
			[2]string{"by", strings.Join(p.By, ", ")})
	}
	return printFields(w, append(fields, [2]string{"grants", grantsText(me.Grants)},
		[2]string{"until", timestamp(me.ExpiresAt)}))
}
