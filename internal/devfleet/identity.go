package devfleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
)

// joinTTL is long enough for a worker's start on a host that has other things to do.
const joinTTL = time.Hour

// CertificateDir is where a worker's key and certificate are.
func (l Layout) CertificateDir(worker string) string {
	return filepath.Join(l.workerDir(worker), "identity")
}

// AuthorityDir is where the fleet's authority is.
func (l Layout) AuthorityDir() string { return filepath.Join(l.serverDir(), "identity") }

// joinToken returns the file with a worker's join token, and makes one if the worker has no
// certificate yet; "" if it has one, and nobody put a token there.
func (f *Fleet) joinToken(ctx context.Context, worker string) (string, error) {
	file := filepath.Join(f.workerDir(worker), "join.token")
	_, err := os.Stat(filepath.Join(f.CertificateDir(worker), "identity.pem"))
	if err == nil {
		if _, err := os.Stat(file); err != nil {
			return "", nil
		}
		return file, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for the certificate of worker %s: %w", worker, err)
	}
	at, err := client.ReadFleetFile(f.Dir)
	if err != nil {
		return "", err
	}
	c, err := client.New(at.URL, at.Token, client.WithCA(at.CA))
	if err != nil {
		return "", err
	}
	token, err := c.CreateJoinToken(ctx, worker, joinTTL)
	if err != nil {
		return "", fmt.Errorf("make a join token for worker %s: %w", worker, err)
	}
	return file, atomicfile.Write(file, []byte(token.Token+"\n"), 0o600)
}

// showAuthority puts the fleet's authority beside the file that clients read.
func (f *Fleet) showAuthority() error {
	ca, err := os.ReadFile(filepath.Join(f.AuthorityDir(), client.CAFileName))
	if err != nil {
		return fmt.Errorf("read the fleet's authority: %w", err)
	}
	return atomicfile.Write(f.path(client.CAFileName), ca, 0o644)
}
