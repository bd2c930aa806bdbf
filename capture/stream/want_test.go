package stream_test

import (
	"reflect"

	"github.com/netcap-guard/netcap-guard/record"
)

func fieldsOf(t record.Type) []string {
	typ := reflect.TypeOf(t.New()).Elem()
	names := make([]string, typ.NumField())
	for i := range names {
		names[i] = typ.Field(i).Name
	}
	return names
}
