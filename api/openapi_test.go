package api_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/api"
)

// TestOpenAPIHasEveryField keeps the document's schemas and the wire types together.
func TestOpenAPIHasEveryField(t *testing.T) {
	_, schemas, ok := strings.Cut(api.OpenAPI(), "\n  schemas:\n")
	if !ok {
		t.Fatal("no schemas")
	}
	have := map[string]map[string]bool{}
	name := ""
	for _, line := range strings.Split(schemas, "\n") {
		key, _, isKey := strings.Cut(strings.TrimSpace(line), ":")
		switch indent := len(line) - len(strings.TrimLeft(line, " ")); {
		case isKey && indent == 4:
			name, have[key] = key, map[string]bool{}
		case isKey && indent == 8:
			have[name][key] = true
		}
	}
	for _, v := range []any{api.ErrorBody{}, api.Error{}, api.Server{}, api.CreateMachine{}, api.Machine{}, api.MachineConfig{},
		api.Service{}, api.Check{}, api.ServiceInfo{}, api.DiskActivity{}, api.Event{}, api.Migrate{}, api.Worker{}, api.Condition{},
		api.Cordon{}, api.CreateDrain{}, api.Drain{}, api.Blocker{}, api.Move{}, api.Step{}, api.Image{}, api.DiskInfo{}, api.DiskCheckpoint{}} {
		typ := reflect.TypeOf(v)
		want := map[string]bool{}
		for i := range typ.NumField() {
			if field, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); field != "-" {
				want[field] = true
			}
		}
		if !reflect.DeepEqual(have[typ.Name()], want) {
			t.Errorf("schema %s has the fields %v, the type has %v", typ.Name(), have[typ.Name()], want)
		}
	}
}
