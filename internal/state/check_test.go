package state_test

import (
	"fmt"
	"testing"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestCheckRefusesWhatNoStoreTakes(t *testing.T) {
	full := make([]state.Op, state.MaxTxnOps)
	for i := range full {
		full[i].Key = fmt.Sprint("k", i)
	}
	for name, c := range map[string]struct {
		txn  state.Txn
		kind errs.Kind
	}{
		"empty": {state.Txn{}, ""},
		"full":  {state.Txn{Then: full}, ""},
		"too many ops": {state.Txn{Then: append(full[:len(full):len(full)],
			state.Op{Key: "more"})}, errs.Invalid},
		"too many conds": {state.Txn{If: make([]state.Cond, state.MaxTxnOps+1)}, errs.Invalid},
		"empty op key":   {state.Txn{Then: []state.Op{{}}}, errs.Invalid},
		"empty cond key": {state.Txn{If: []state.Cond{{}}}, errs.Invalid},
		"key twice": {state.Txn{Then: []state.Op{{Key: "a"}, {Key: "a", Delete: true}}},
			errs.Invalid},
		"condition twice": {state.Txn{If: []state.Cond{{Key: "a"}, {Key: "a"}}}, ""},
	} {
		if got := errs.KindOf(state.Check(c.txn)); got != c.kind {
			t.Errorf("%s: kind %q, want %q", name, got, c.kind)
		}
	}
}
