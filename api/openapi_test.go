package api_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
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
	types := wireTypes(t)
	if len(types) < 20 {
		t.Fatalf("only %d wire types were found", len(types))
	}
	for name, want := range types {
		schema := schemas[name]
		if schema == nil {
			t.Errorf("there is no schema %s", name)
			continue
		}
		if have := slices.Sorted(maps.Keys(schema.Value.Properties)); !slices.Equal(have, want) {
			t.Errorf("schema %s has the fields %v, the type has %v", name, have, want)
		}
	}
}

// wireTypes returns the JSON fields, sorted, of each exported struct that has any. Generic ones are
// left out: the document writes them out where they are used. So are the frames of exec, a protocol
// of its own.
func wireTypes(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string][]string{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() || spec.TypeParams != nil ||
				strings.HasPrefix(spec.Name.Name, "Exec") {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				if fields := jsonFields(t, s); len(fields) > 0 {
					types[spec.Name.Name] = fields
				}
			}
			return false
		})
	}
	return types
}

// jsonFields returns the names that encoding/json gives to a struct's fields; none if no field has
// a JSON tag, because such a struct isn't sent.
func jsonFields(t *testing.T, s *ast.StructType) []string {
	t.Helper()
	var all []string
	tagged := false
	for _, f := range s.Fields.List {
		if len(f.Names) != 1 {
			t.Fatalf("%v: one name for each field: what is embedded isn't read here", f.Type)
		}
		name := f.Names[0].Name
		if !f.Names[0].IsExported() {
			continue
		}
		if f.Tag != nil {
			tag, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			value, ok := reflect.StructTag(tag).Lookup("json")
			tagged = tagged || ok
			if given, _, _ := strings.Cut(value, ","); given != "" {
				name = given
			}
		}
		if name != "-" {
			all = append(all, name)
		}
	}
	if !tagged {
		return nil
	}
	slices.Sort(all)
	return all
}
