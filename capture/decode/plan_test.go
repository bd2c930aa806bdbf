package decode

import (
	"reflect"
	"testing"
)

// A field's name that no struct has would never be asked for.
func TestCostlyFieldsExist(t *testing.T) {
	for typ, fields := range costly {
		if !typ.Served() {
			t.Errorf("%v is not served", typ)
		}
		for name := range fields {
			if _, ok := reflect.TypeOf(typ.New()).Elem().FieldByName(name); !ok {
				t.Errorf("%v has no field %s", typ, name)
			}
		}
	}
}

// What holds memory or takes work is never filled for nothing: such fields are
// all in the list.
func TestStringsAndSlicesAreCostly(t *testing.T) {
	for typ := range costly {
		for f := range reflect.TypeOf(typ.New()).Elem().Fields() {
			switch f.Type.Kind() {
			case reflect.String, reflect.Slice, reflect.Pointer, reflect.Float64, reflect.Map:
				if costly[typ][f.Name] == 0 {
					t.Errorf("%v.%s is filled always", typ, f.Name)
				}
			}
		}
	}
}
