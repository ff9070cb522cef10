package state

import "github.com/sluice-platform/sluice/internal/x/errs"

// MaxTxnOps bounds the conditions, and separately the operations, of one Txn. It is etcd's own
// default, so that a transaction which works on one store works on all of them.
const MaxTxnOps = 128

// Check returns an error of kind Invalid for a transaction that no store accepts: too long, an
// empty key, or a key written twice. Every Store calls it, so that they refuse the same
// transactions.
func Check(txn Txn) error {
	if len(txn.If) > MaxTxnOps || len(txn.Then) > MaxTxnOps {
		return errs.New(errs.Invalid,
			"a transaction of %d conditions and %d operations; at most %d of each fit",
			len(txn.If), len(txn.Then), MaxTxnOps).WithRemedy("split it into several transactions")
	}
	for _, c := range txn.If {
		if c.Key == "" {
			return errs.New(errs.Invalid, "a condition on an empty key")
		}
	}
	seen := make(map[string]struct{}, len(txn.Then))
	for _, op := range txn.Then {
		if op.Key == "" {
			return errs.New(errs.Invalid, "an operation on an empty key")
		}
		if _, twice := seen[op.Key]; twice {
			return errs.New(errs.Invalid, "key %q is written twice in one transaction", op.Key)
		}
		seen[op.Key] = struct{}{}
	}
	return nil
}
