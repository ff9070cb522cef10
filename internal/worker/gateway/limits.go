package gateway

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Limits bounds what one VM may do to the store that all share. A zero field means its default, a
// negative one that there is no bound.
type Limits struct {
	// QuotaFactor and QuotaExtra bound what a disk may have in the store, live and garbage: the
	// factor times its size, and so many bytes more. Garbage stays for as long as the collector's
	// grace, so that a disk which is rewritten all the time has many times its size. Defaults of
	// the two: 16, and 16 GiB.
	QuotaFactor float64
	QuotaExtra  int64
	Requests    float64 // a second; default 5000, of which 4 s may come at once
	Bytes       float64 // a second, read and written; default 1 GiB, as above
}

const (
	defaultQuotaFactor = 16
	defaultQuotaExtra  = 16 << 30
	defaultRequests    = 5000
	defaultBytes       = 1 << 30
	burstSeconds       = 4

	ratePatience = 20 * time.Second // shorter than a client waits for an answer
)

func (l Limits) withDefaults() Limits {
	set := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	if l.QuotaFactor == 0 && l.QuotaExtra == 0 {
		l.QuotaFactor, l.QuotaExtra = defaultQuotaFactor, defaultQuotaExtra
	}
	set(&l.Requests, defaultRequests)
	set(&l.Bytes, defaultBytes)
	return l
}

// Quota returns what a disk of that size may have in the store, in bytes; 0: as much as it likes.
func (l Limits) Quota(size int64) int64 {
	l = l.withDefaults()
	if l.QuotaFactor < 0 || l.QuotaExtra < 0 {
		return 0
	}
	return int64(l.QuotaFactor*float64(size)) + l.QuotaExtra
}

// pace spaces one VM's requests. Who asks for more waits, and then is told to come back.
type pace struct {
	requests, bytes *rate.Limiter
}

func newPace(l Limits) pace {
	limiter := func(perSecond float64) *rate.Limiter {
		if perSecond < 0 {
			return rate.NewLimiter(rate.Inf, 0)
		}
		return rate.NewLimiter(rate.Limit(perSecond), max(1, int(burstSeconds*perSecond)))
	}
	l = l.withDefaults()
	return pace{limiter(l.Requests), limiter(l.Bytes)}
}

// wait returns when the VM may send its next request. Bytes are paid afterwards: what a request
// reads isn't known before, so that a large one delays those after it.
func (p *pace) wait(ctx context.Context) error {
	for what, l := range map[string]*rate.Limiter{"requests": p.requests, "bytes": p.bytes} {
		r := l.Reserve()
		pause := r.Delay()
		if pause > ratePatience {
			r.Cancel()
			return errs.Wrap(errs.Unavailable, &blob.Throttled{After: pause},
				"this VM asks for more %s a second than the worker lets it have", what).
				WithRemedy("let it do less, or raise the worker's bounds: sluice worker --help")
		}
		if err := backoff.Sleep(ctx, pause); err != nil {
			return errs.Wrap(errs.Unavailable, err, "wait for this VM's turn")
		}
	}
	return nil
}

// pay notes the bytes of a request that was answered.
func (p *pace) pay(now time.Time, n int) {
	for burst := p.bytes.Burst(); n > 0 && burst > 0; n -= burst {
		p.bytes.ReserveN(now, min(n, burst))
	}
}
