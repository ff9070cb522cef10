// Package signin knows people by ID tokens of an OpenID Connect issuer, and what they may do by a
// text that gives groups and single people grants.
//
// People is all of it. A token is looked at in three steps: what costs nothing (its form, for whom
// it is, its times), its signature by a key that is kept, and the text. Requests never ask the
// issuer: Run does, in one place, now and then and for keys that aren't known, which is bounded. So
// neither a flood of false tokens nor an issuer that is away holds up anybody else.
package signin
