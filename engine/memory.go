package engine

import (
	"reflect"
	"unsafe"

	"github.com/netcap-guard/netcap-guard/record"
)

// Beside the kernel doors, package unsafe is used here and in capture/stream/
// message (strings that alias a message), nowhere else. A native expression reads a record's fields at offsets that
// reflect reported for the record's struct type, through a pointer into that
// very struct; nothing is written. Every offset, kind and element size comes
// from one reflect.Type, checked when the rule is loaded, so an access cannot
// leave the struct; slice elements are bounds-checked by the caller (see
// place.index).

// ref is the address of a record, or of a value inside one. It lives for one
// evaluation. Its zero value is nil.
type ref struct{ p unsafe.Pointer }

func (r ref) isNil() bool { return r.p == nil }

// at is the address of a field.
func (r ref) at(offset uintptr) ref { return ref{unsafe.Add(r.p, offset)} }

func (r ref) bool() bool      { return *(*bool)(r.p) }
func (r ref) float() float64  { return *(*float64)(r.p) }
func (r ref) text() string    { return *(*string)(r.p) }
func (r ref) int32() int32    { return *(*int32)(r.p) }
func (r ref) uint32() uint32  { return *(*uint32)(r.p) }
func (r ref) int64() int64    { return *(*int64)(r.p) }
func (r ref) pointer() ref    { return ref{*(*unsafe.Pointer)(r.p)} }
func (r ref) bytes() []byte   { return *(*[]byte)(r.p) }
func (r ref) texts() []string { return *(*[]string)(r.p) }
func (r ref) int32s() []int32 { return *(*[]int32)(r.p) }
func (r ref) sliceLen() int   { return (*header)(r.p).len }

// element is the address of a slice's i-th element; the caller checked i.
func (r ref) element(i int, size uintptr) ref {
	return ref{unsafe.Add((*header)(r.p).data, uintptr(i)*size)}
}

// dictionary reads a map[string]string.
func (r ref) dictionary() map[string]string { return *(*map[string]string)(r.p) }

// header is how every slice begins (the layout of reflect.SliceHeader, with a
// pointer that the collector sees).
type header struct {
	data     unsafe.Pointer
	len, cap int
}

// isInteger reports whether a kind is one of Go's integers.
func isInteger(k reflect.Kind) bool { return intLoader(k) != nil }

// intLoader returns how an integer of a kind is read as Go's int, which is
// what expr computes with; nil where the kind is no integer.
func intLoader(k reflect.Kind) func(ref) int {
	switch k {
	case reflect.Int8:
		return func(r ref) int { return int(*(*int8)(r.p)) }
	case reflect.Uint8:
		return func(r ref) int { return int(*(*uint8)(r.p)) }
	case reflect.Int16:
		return func(r ref) int { return int(*(*int16)(r.p)) }
	case reflect.Uint16:
		return func(r ref) int { return int(*(*uint16)(r.p)) }
	case reflect.Int32:
		return func(r ref) int { return int(r.int32()) }
	case reflect.Uint32:
		return func(r ref) int { return int(r.uint32()) }
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64:
		return func(r ref) int { return int(r.int64()) }
	}
	return nil
}

// layout knows where each record type lies inside a record.Set.
type layout struct {
	offset [record.NumTypes]uintptr
}

func newLayout() *layout {
	l := &layout{}
	set := new(record.Set)
	for _, t := range record.Types() {
		l.offset[t] = reflect.ValueOf(set.Record(t)).Pointer() - uintptr(unsafe.Pointer(set))
	}
	return l
}

// record is the address of the set's record of type t.
func (l *layout) record(set *record.Set, t record.Type) ref {
	return ref{unsafe.Pointer(set)}.at(l.offset[t])
}
