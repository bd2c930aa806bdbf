package decode_test

import (
	"reflect"

	"github.com/netcap-guard/netcap-guard/record"
)

// everything asks for every field of every type that is served.
func everything() record.Want {
	var w record.Want
	for _, t := range record.Types() {
		if !t.Served() {
			continue
		}
		w.Add(t, fields(t)...)
	}
	return w
}

func fields(t record.Type) []string {
	var names []string
	for f := range reflect.TypeOf(t.New()).Elem().Fields() {
		names = append(names, f.Name)
	}
	return names
}
