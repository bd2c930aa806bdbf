package record

import (
	"net/netip"
	"reflect"
	"strings"
)

// Snapshot returns a deep copy of the set's record of the type, which the
// caller may keep: nothing in it aliases the packet. The address fields are
// filled from the Header where the decoder left them empty. It allocates, so
// it belongs behind a threshold, never before one.
func (s *Set) Snapshot(t Type) any {
	e := of(t)
	rec := e.of(s)
	if rec == nil {
		return nil
	}
	kept := deepCopy(reflect.ValueOf(rec)).Interface()
	if e.addresses != nil {
		src, dst := e.addresses(kept)
		fillAddress(src, s.Src)
		fillAddress(dst, s.Dst)
	}
	return kept
}

func fillAddress(field *string, a netip.Addr) {
	if *field == "" && a.IsValid() {
		*field = a.String()
	}
}

// deepCopy follows pointers, slices, maps and structs; strings are cloned too,
// because those of stream records alias the packet. Records hold nothing else
// that refers to memory.
func deepCopy(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		return reflect.ValueOf(strings.Clone(v.String())).Convert(v.Type())
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		c := reflect.New(v.Type().Elem())
		c.Elem().Set(deepCopy(v.Elem()))
		return c
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			c.Index(i).Set(deepCopy(v.Index(i)))
		}
		return c
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		c := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			c.SetMapIndex(deepCopy(it.Key()), deepCopy(it.Value()))
		}
		return c
	case reflect.Struct:
		c := reflect.New(v.Type()).Elem()
		for i := range v.NumField() {
			c.Field(i).Set(deepCopy(v.Field(i)))
		}
		return c
	}
	return v
}
