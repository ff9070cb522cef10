package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

func newCACommand(d *deps) *cobra.Command {
	cmd := newNoun("ca", "Show and rotate the fleet's authority, which vouches for all its parts",
		newCAShowCommand(d),
		newCARotateCommand(d),
	)
	cmd.Long = `The fleet's authority: it signs the certificates by which server and workers know each
other, and clients the server.`
	return cmd
}

func newCAShowCommand(d *deps) *cobra.Command {
	var asPEM bool
	cmd := &cobra.Command{
		Use:   "show [--pem]",
		Short: "Show what certificates the parts of the fleet trust, and which workers have followed",
		Long: `Show the certificates that all parts of the fleet trust, how far a rotation has come,
and which workers have followed its last step: they trust just these certificates, and
have one of their own by the one that signs.

With --pem, print what clients are to trust: the content of --ca-file. Any client that
knows the server now can fetch what it needs after the next step.
` + exitTable,
		Example: "  sluice ca show\n  sluice ca show --pem > ca.pem.new && mv ca.pem.new ca.pem",
		Args:    exactly(),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			if asPEM {
				text, err := c.AuthorityPEM(cmd.Context())
				if err != nil {
					return err
				}
				_, err = d.stdout.Write(text)
				return err
			}
			a, err := c.Authority(cmd.Context())
			if err != nil {
				return err
			}
			return d.result(a, func(w io.Writer) error { return printAuthority(w, a) })
		}),
	}
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the certificates, for clients' --ca-file")
	return cmd
}

func printAuthority(w io.Writer, a api.Authority) error {
	rows := make([][]string, 0, len(a.Certificates))
	for _, c := range a.Certificates {
		does := "trusted"
		if c.Signs {
			does = "signs"
		}
		rows = append(rows, []string{c.Fingerprint[:min(len(c.Fingerprint), 32)], does,
			timestamp(c.NotAfter), c.Subject})
	}
	header := []string{"FINGERPRINT", "USE", "EXPIRES", "SUBJECT"}
	if err := printTable(w, header, rows); err != nil {
		return err
	}
	behind := "none is behind"
	if len(a.Behind) > 0 {
		behind = "behind: " + strings.Join(a.Behind, ", ")
	}
	_, err := fmt.Fprintf(w, "\nRotation: %s. %d of %d workers have followed; %s.\n", a.Phase,
		len(a.Current), len(a.Current)+len(a.Behind), behind)
	return err
}

func newCARotateCommand(d *deps) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rotate begin|switch|finish|abort",
		Short: "Replace the fleet's authority by a new one, step by step, while all goes on",
		Long: `Replace the fleet's authority by a new one. Nothing stops, and no request fails. Each
step may be repeated, and a server that dies goes on with the one that it had taken.

  begin   make the new authority; all parts trust it besides the old one
  switch  let it sign; server and workers get certificates of it. Clients that don't
          trust it yet are shut out from here: give them sluice ca show --pem before
  finish  trust the old one no more: its certificates are worthless
  abort   of one that has only begun: forget the new one

switch and finish are refused until all workers have followed the step before, which
takes them seconds: see sluice ca show. With --force those that have not are left
behind, and have to join anew. Join tokens from before switch are void after it.
` + exitTable,
		Example: `  sluice ca rotate begin
  sluice ca show --pem > ca.pem.new && mv ca.pem.new ca.pem
  sluice ca rotate switch
  sluice ca rotate finish`,
		Args: exactly("a step: begin, switch, finish or abort"),
		RunE: d.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if args[0] == "switch" {
				if err := d.knowsNext(cmd, c); err != nil {
					return err
				}
			}
			a, err := c.RotateAuthority(cmd.Context(), args[0], force)
			if err != nil {
				return err
			}
			return d.result(a, func(w io.Writer) error { return printAuthority(w, a) })
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "leave workers behind that have not followed")
	return cmd
}

// knowsNext keeps an operator from shutting this very client out.
func (d *deps) knowsNext(cmd *cobra.Command, c *client.Client) error {
	own, err := d.trusted()
	if err != nil || own == nil {
		return err
	}
	a, err := c.Authority(cmd.Context())
	if err != nil {
		return err
	}
	has := fingerprints(own)
	for _, cert := range a.Certificates {
		if !slices.Contains(has, cert.Fingerprint) {
			return &api.Error{Code: "conflict",
				Message: "this client doesn't trust the new authority yet, and would be shut out",
				Remedy:  "sluice ca show --pem > NEW, put NEW in place of this client's ca.pem and of all others'; then repeat this"}
		}
	}
	return nil
}

// trusted returns the authority that this client trusts; nil: this host's.
func (d *deps) trusted() ([]byte, error) {
	own, err := d.authority()
	if err != nil || own != nil {
		return own, err
	}
	f, err := d.fleetAddress()
	return f.CA, err
}

// fingerprints returns those of all certificates in a PEM text.
func fingerprints(text []byte) []string {
	var out []string
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		sum := sha256.Sum256(block.Bytes)
		out = append(out, hex.EncodeToString(sum[:]))
	}
}
