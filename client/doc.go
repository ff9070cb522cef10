// Package client calls Sluice's HTTP API. It needs only the wire types and a WebSocket library.
//
// Every error is either an *api.Error, to be matched by its Code (see IsCode), or the error of the
// caller's context. A server that can't be reached gives code "unavailable". Nothing is retried,
// but for watches and waits, which begin again after a lost connection because they carry whole
// states. A Client is safe for concurrent use.
package client
