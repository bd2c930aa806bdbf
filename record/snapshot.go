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
	copied := reflect.New(reflect.TypeOf(rec).Elem())
	copied.Elem().Set(reflect.ValueOf(rec).Elem())
	detach(copied.Elem())
	kept := copied.Interface()
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

// detach gives v, a copy, what it refers to for its own. It follows pointers,
// slices, maps and structs; strings are cloned too, because those of stream
// records alias the packet. Records hold nothing else that refers to memory.
func detach(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); s != "" {
			v.SetString(strings.Clone(s))
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		c := reflect.New(v.Type().Elem())
		c.Elem().Set(v.Elem())
		detach(c.Elem())
		v.Set(c)
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(c, v)
		if refers(v.Type().Elem().Kind()) {
			for i := range c.Len() {
				detach(c.Index(i))
			}
		}
		v.Set(c)
	case reflect.Map:
		if v.IsNil() {
			return
		}
		c := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			c.SetMapIndex(detached(it.Key()), detached(it.Value()))
		}
		v.Set(c)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); refers(f.Kind()) {
				detach(f)
			}
		}
	}
}

// detached is a detached copy of v.
func detached(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	detach(c)
	return c
}

// refers reports whether values of a kind can refer to memory.
func refers(k reflect.Kind) bool {
	return k == reflect.String || k == reflect.Pointer || k == reflect.Slice || k == reflect.Map || k == reflect.Struct
}
