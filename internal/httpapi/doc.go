// Package httpapi serves Sluice's HTTP API: it authorizes, decodes, calls the control plane, and
// encodes.
//
// Invariants: a request that is refused has changed nothing; every answer that isn't 2xx, 101 or a
// machine's own answer through ports/ has an api.ErrorBody; tokens are compared in constant time
// and are never logged or passed on (to a worker the server shows its certificate instead of the
// caller's token); a call that concerns the inside of one machine is proxied to it and not
// implemented here a second time.
package httpapi
