package httpapi

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	defaultPage = 500
	maxPage     = 5000
	pagePrefix  = "k1:" // version of the token's content
)

// page cuts one page out of all items. The token names the last key given out, so that items which
// come and go between two pages neither repeat nor hide others.
func page[T any](r *http.Request, items []T, key func(T) string) (api.List[T], error) {
	q := r.URL.Query()
	limit := defaultPage
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxPage {
			return api.List[T]{}, errs.New(errs.Invalid,
				"limit %q is not a number from 1 to %d", s, maxPage)
		}
		limit = n
	}
	after, err := decodePage(q.Get("page"))
	if err != nil {
		return api.List[T]{}, err
	}
	sorted := slices.Clone(items)
	slices.SortFunc(sorted, func(x, y T) int { return cmp.Compare(key(x), key(y)) })
	start := 0
	if after != "" {
		start, _ = slices.BinarySearchFunc(sorted, after, func(x T, k string) int {
			if key(x) <= k {
				return -1
			}
			return 1
		})
	}
	out := api.List[T]{Items: []T{}}
	end := min(start+limit, len(sorted))
	out.Items = append(out.Items, sorted[start:end]...)
	if end < len(sorted) && end > start {
		out.Next = base64.RawURLEncoding.EncodeToString([]byte(pagePrefix + key(sorted[end-1])))
	}
	return out, nil
}

func decodePage(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	after, ok := strings.CutPrefix(string(raw), pagePrefix)
	if err != nil || !ok {
		return "", errs.New(errs.Invalid, "page token %q is none of ours", token).
			WithRemedy("pass on the field next of the answer before, unchanged")
	}
	return after, nil
}
