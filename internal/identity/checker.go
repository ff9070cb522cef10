package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"
)

// checker is Check that looks at each chain's signatures once only. Safe for concurrent use.
type checker struct {
	roots *x509.CertPool
	fleet string
	where string // whose clock it is

	mu   sync.Mutex
	seen map[[sha256.Size]byte]Name
}

// maxSeen bounds what a checker remembers; then it begins anew.
const maxSeen = 4096

func (c *checker) check(chain []*x509.Certificate, now time.Time) (Name, error) {
	var sum [sha256.Size]byte
	if len(chain) > 0 {
		sum = sha256.Sum256(chain[0].Raw)
	}
	c.mu.Lock()
	name, known := c.seen[sum]
	c.mu.Unlock()
	if !known {
		var err error
		if name, err = checkChain(c.roots, c.fleet, chain); err != nil {
			return Name{}, err
		}
		c.mu.Lock()
		if c.seen == nil || len(c.seen) >= maxSeen {
			c.seen = map[[sha256.Size]byte]Name{}
		}
		c.seen[sum] = name
		c.mu.Unlock()
	}
	return name, checkClock(name, chain[0], now, c.where)
}
