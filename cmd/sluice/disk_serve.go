package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// serveFlags say where a disk is served, and to whom.
type serveFlags struct {
	holdFlags
	socket, listen            string
	tlsCert, tlsKey, clientCA string
}

func newDiskServeCommand(d *deps) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve URL --socket PATH | --listen ADDRESS",
		Short: "Serve a disk over NBD, to QEMU, nbd-client and others",
		Long: `Serve a disk over NBD for as long as this command runs. A write that a client has
flushed is in the store, or of a disk of mode bounded at least in its journal. On a
unix socket only this user gets in. On TCP everybody does who reaches the address,
unless --tls-client-ca asks for certificates; an address without a host is on
127.0.0.1.

Who may write the disk is as with disk mount.
` + stallHelp + journalHelp + exitTable,
		Example: `  sluice disk serve s3://bucket/disks/vm-1 --socket /run/vm-1.sock
  qemu-system-x86_64 -drive file=nbd+unix:///?socket=/run/vm-1.sock,format=raw,if=virtio
  sluice disk serve s3://bucket/disks/vm-1 --listen :10809 --read-only --checkpoint monday
  sluice disk serve s3://bucket/disks/vm-1 --listen 0.0.0.0:10809 --tls-cert c.pem --tls-key k.pem --tls-client-ca ca.pem`,
		Args: exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(f.validate(), d.journal.validate(f.readOnly)); err != nil {
				return err
			}
			if f.background {
				return d.inBackground(cmd.Context(), args[0],
					append(f.args(args[0]), d.holdArgs()...))
			}
			return d.behind(cmd.Context(),
				func(ctx context.Context) error { return d.serveDisk(ctx, args[0], &f) })
		},
	}
	addHoldFlags(cmd, &f.holdFlags)
	cmd.Flags().StringVar(&f.socket, "socket", "", "unix socket to serve on")
	cmd.Flags().StringVar(&f.listen, "listen", "", "address to serve on, such as 127.0.0.1:10809")
	cmd.Flags().StringVar(&f.tlsCert, "tls-cert", "",
		"file with this server's certificate, in PEM: only TLS is served")
	cmd.Flags().StringVar(&f.tlsKey, "tls-key", "", "file with its key")
	cmd.Flags().StringVar(&f.clientCA, "tls-client-ca", "",
		"file with the authority that clients' certificates must be of")
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

func (f *serveFlags) validate() error {
	switch {
	case f.socket == "" && f.listen == "":
		return usageError("disk serve needs --socket or --listen")
	case (f.tlsCert == "") != (f.tlsKey == ""), f.clientCA != "" && f.tlsCert == "":
		return usageError("TLS needs --tls-cert and --tls-key")
	case f.tlsCert != "" && f.listen == "":
		return usageError("TLS is for --listen; a socket is this user's alone")
	}
	return f.holdFlags.validate()
}

func (f *serveFlags) args(url string) []string {
	a := append([]string{"disk", "serve", url}, f.holdFlags.args()...)
	for _, x := range [][2]string{{"--socket", f.socket}, {"--listen", f.listen},
		{"--tls-cert", f.tlsCert}, {"--tls-key", f.tlsKey}, {"--tls-client-ca", f.clientCA}} {
		if x[1] != "" {
			a = append(a, x[0], x[1])
		}
	}
	return a
}

// tls returns the configuration of TLS, or nil.
func (f *serveFlags) tls() (*tls.Config, error) {
	if f.tlsCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "read the server's certificate")
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if f.clientCA == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(f.clientCA)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "read the authority of clients")
	}
	cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "there is no certificate in %s", f.clientCA)
	}
	return cfg, nil
}

// serveDisk does all of disk serve.
func (d *deps) serveDisk(ctx context.Context, url string, f *serveFlags) error {
	secure, err := f.tls()
	if err != nil {
		return err
	}
	return d.session(ctx, url, &f.holdFlags, func(c *host.Config) (err error) {
		c.Mode = attachment.Serve
		c.NBD, err = host.ListenNBD(ctx, f.socket, f.listen, secure)
		return err
	})
}
