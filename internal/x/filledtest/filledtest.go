// Package filledtest tells a test of a copy which fields its example has, and which have no value,
// so that a field that is added to a type can't be left out of the copy without being noticed.
package filledtest

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
)

// Fields returns the JSON of each field of v, by the name that it has there.
func Fields(t testing.TB, v any) map[string]json.RawMessage {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Zero returns the paths of the exported fields, at any depth, that have their zero value wherever
// they are in v. Of a slice, an array or a map it is enough that one element has the field.
func Zero(v any) []string {
	return zero("", []reflect.Value{reflect.ValueOf(v)})
}

// zero does so for the values that are all at one path.
func zero(path string, at []reflect.Value) []string {
	at = slices.DeleteFunc(at, reflect.Value.IsZero)
	if len(at) == 0 {
		return []string{path}
	}
	var below []reflect.Value
	switch at[0].Kind() {
	case reflect.Struct:
		return zeroFields(path, at)
	case reflect.Pointer:
		for _, v := range at {
			below = append(below, v.Elem())
		}
	case reflect.Slice, reflect.Array:
		path += "[]"
		for _, v := range at {
			for i := range v.Len() {
				below = append(below, v.Index(i))
			}
		}
	case reflect.Map:
		path += "[]"
		for _, v := range at {
			for _, key := range v.MapKeys() {
				below = append(below, v.MapIndex(key))
			}
		}
	default:
		return nil
	}
	return zero(path, below)
}

func zeroFields(path string, at []reflect.Value) []string {
	var paths []string
	for i := range at[0].NumField() {
		f := at[0].Type().Field(i)
		if !f.IsExported() {
			continue
		}
		var values []reflect.Value
		for _, v := range at {
			values = append(values, v.Field(i))
		}
		paths = append(paths, zero(path+"."+f.Name, values)...)
	}
	return paths
}
