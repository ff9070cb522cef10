// Package bench measures what Sluice claims, each figure beside a peer or beside its other half in
// the same run, and prints the ratio. Nothing here fails on a time. Run it with `make bench`.
package bench
