// Package filledtest tells a test of a copy which fields its example has, and which have no value,
// so that a field that is added to a type can't be left out of the copy without being noticed.
package filledtest

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"
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

// Fill gives each exported field below v, a pointer, a value that is not its zero value: one
// element to each slice and map, and the same short text to all strings. Structs without exported
// fields, other than times, and interfaces stay as they are.
func Fill(v any) { fill(reflect.ValueOf(v).Elem()) }

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	default:
		switch {
		case v.CanInt():
			v.SetInt(1)
		case v.CanUint():
			v.SetUint(1)
		case v.CanFloat():
			v.SetFloat(1)
		}
	}
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
