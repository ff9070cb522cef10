package api_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sluice-platform/sluice/api"
)

func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	if err := document(t).Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestOpenAPIHasEveryField keeps the document's schemas and the wire types together.
func TestOpenAPIHasEveryField(t *testing.T) {
	schemas := document(t).Components.Schemas
	for _, v := range []any{
		api.ErrorBody{}, api.Error{}, api.Server{}, api.CreateMachine{}, api.Machine{},
		api.MachineConfig{},
		api.Service{}, api.Check{}, api.ServiceInfo{}, api.DiskActivity{},
		api.DiskStall{}, api.Event{},
		api.Migrate{}, api.Worker{}, api.Condition{}, api.Cordon{}, api.CreateDrain{}, api.Drain{},
		api.Blocker{}, api.Move{}, api.Step{}, api.Image{}, api.DiskInfo{}, api.DiskStats{},
		api.DiskWait{},
		api.DiskCheckpoint{},
	} {
		typ := reflect.TypeOf(v)
		schema := schemas[typ.Name()]
		if schema == nil {
			t.Errorf("there is no schema %s", typ.Name())
			continue
		}
		var want []string
		for i := range typ.NumField() {
			if field, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); field != "-" {
				want = append(want, field)
			}
		}
		slices.Sort(want)
		if have := slices.Sorted(maps.Keys(schema.Value.Properties)); !slices.Equal(have, want) {
			t.Errorf("schema %s has the fields %v, the type has %v", typ.Name(), have, want)
		}
	}
}
