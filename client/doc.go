// Package client calls Sluice's HTTP API. It needs only the wire types and a WebSocket library.
//
// Every error is an *api.Error, which you match by its code with IsCode, or the error of your
// context. Every call can fail with "invalid" (the request is wrong), "denied" (the token isn't
// accepted), "not_found" (what it names doesn't exist) or "internal". It fails with "unavailable"
// if the server, or a machine's platform, can't be reached now. Calls that change something can
// also fail with "exists", "conflict" and "exhausted".
//
// No call is retried. Only watches and waits reconnect, because each of their answers is a whole
// state. A Client is safe for concurrent use.
package client
