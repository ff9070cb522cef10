// Package jsonhttp is how servers read and answer JSON, and how they know a caller's token.
package jsonhttp

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// MaxBody bounds the body of an ordinary request.
const MaxBody = 1 << 20

// Strictness says what happens to fields that this release doesn't know.
type Strictness bool

const (
	Strict  Strictness = true  // refuse them: a misspelt field must not be ignored
	Lenient Strictness = false // ignore them: the sender may be of a newer release
)

// Decode reads a request's body, one JSON document of at most limit bytes, into v. An empty body
// leaves v as it is. What can't be read is Invalid.
func Decode(w http.ResponseWriter, r *http.Request, limit int64, mode Strictness, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	if mode == Strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return bodyError(err, limit)
	}
	_, err := dec.Token()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return bodyError(err, limit)
	}
	return errs.New(errs.Invalid, "the request's body holds more than one JSON document")
}

func bodyError(err error, limit int64) error {
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return errs.New(errs.Invalid, "the request's body is larger than %d bytes", limit)
	}
	return errs.Wrap(errs.Invalid, err, "the request's body is not what this call takes")
}

// Write answers with a JSON document. Who is gone needs no answer.
func Write(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		Fail(w, errs.Wrap(errs.Internal, err, "encode the answer"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// Fail answers with an error, as an errs.Wire, and its kind's status.
func Fail(w http.ResponseWriter, err error) {
	Write(w, errhttp.Status(errs.KindOf(err)), errs.ToWire(err))
}

// Answering makes a handler of a function from a JSON body to a JSON answer. Only a POST has a
// body.
func Answering[Q, A any](fn func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if r.Method == http.MethodPost {
			if err := Decode(w, r, MaxBody, Lenient, &q); err != nil {
				Fail(w, err)
				return
			}
		}
		a, err := fn(r.Context(), q)
		if err != nil {
			Fail(w, err)
			return
		}
		Write(w, http.StatusOK, a)
	}
}

// Bearer returns the token that came with a request, "" for none.
func Bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// SameToken reports whether a token is the one that is wanted, in a time that tells nothing of
// either. The empty token is nobody's.
func SameToken(got, want string) bool {
	g, w := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(g[:], w[:]) == 1 && want != ""
}
