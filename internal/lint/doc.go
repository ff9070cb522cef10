// Package lint holds the house rules as tests: what golangci-lint can't say, or says too late. It
// has no code of its own to run.
//
// Rules: every package is documented once; files and functions stay small; imports go one way only
// (docs/architecture.md); what runs inside a VM depends on an allow-list; nothing ships that needs
// cgo; no bare go statements, no init functions, no catch-all package names.
package lint
