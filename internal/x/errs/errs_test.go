package errs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestKindSurvivesWrapping(t *testing.T) {
	base := errs.Wrap(errs.Fenced, io.EOF, "write log object").WithRemedy("attach again")
	err := fmt.Errorf("attach disk: %w", base)
	if !errs.Is(err, errs.Fenced) || !errors.Is(err, io.EOF) {
		t.Fatalf("kind or cause lost: %v", err)
	}
	if got := errs.RemedyOf(err); got != "attach again" {
		t.Fatalf("remedy = %q", got)
	}
}

func TestRemedyIsFoundUnderAnOuterError(t *testing.T) {
	inner := errs.New(errs.NotFound, "no image").WithRemedy("create it")
	if got := errs.RemedyOf(errs.Wrap(errs.Invalid, inner, "create machine")); got != "create it" {
		t.Fatalf("remedy = %q", got)
	}
}

func TestKindOfPlainErrors(t *testing.T) {
	if errs.KindOf(nil) != "" || errs.KindOf(io.EOF) != errs.Internal {
		t.Fatal("nil must have no kind, a plain error must be internal")
	}
}

func TestAnErrorCrossesTheWire(t *testing.T) {
	sent := errs.Wrap(errs.Denied, io.EOF, "read the key").WithRemedy("give another")
	body, err := json.Marshal(errs.ToWire(fmt.Errorf("attach: %w", sent)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"kind":"denied","message":"attach: read the key: EOF","remedy":"give another"}`
	if string(body) != want {
		t.Errorf("on the wire: %s", body)
	}
	var got errs.Wire
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if e := got.Err(); e.Kind != errs.Denied || e.Error() != "attach: read the key: EOF" ||
		e.Remedy != "give another" {
		t.Errorf("it arrived as %+v", e)
	}
	if e := (errs.Wire{Message: "no kind"}).Err(); e.Kind != errs.Internal {
		t.Errorf("one without a kind arrived as %+v", e)
	}
}
