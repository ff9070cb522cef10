package errs_test

import (
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
