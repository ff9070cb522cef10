package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func encode(key string, value any) ([]byte, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "encode the record of key %q", key)
	}
	return b, nil
}

func decode[T any](kv state.KV) (T, error) {
	var value T
	dec := json.NewDecoder(bytes.NewReader(kv.Value))
	dec.DisallowUnknownFields()
	err := dec.Decode(&value)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("bytes after the record")
		}
	}
	if err != nil {
		var zero T
		return zero, errs.Wrap(errs.Corrupt, err, "decode the record of key %q at revision %d", kv.Key, kv.ModRevision).
			WithRemedy("if a newer release wrote it, run that release; else restore the state from a snapshot")
	}
	return value, nil
}
