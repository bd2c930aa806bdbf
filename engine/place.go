package engine

import (
	"net/netip"
	"reflect"

	"github.com/expr-lang/expr/ast"

	"github.com/netcap-guard/netcap-guard/record"
)

func (l *lowerer) identifier(n *ast.IdentifierNode) (value, error) {
	f, ok := l.typ.FieldByName(n.Value)
	if !ok {
		return value{}, cannot("the name %s", n.Value)
	}
	off := f.Offset
	p := place{
		typ: f.Type, top: true, offset: off, field: n.Value,
		addr:   func(e *env) ref { return e.rec.at(off) },
		header: headerAddress(l.record, n.Value),
	}
	if p.header == nil {
		l.fields[n.Value] = true
	}
	return l.load(p)
}

// headerAddress returns how the Header holds the address that a record's text
// field spells out; nil where the field is none of those. POP3 calls them
// client and server, and a header is oriented as its record is.
func headerAddress(t record.Type, field string) func(*env) netip.Addr {
	if !t.Blockable() {
		return nil
	}
	switch field {
	case "SrcIP":
		return func(e *env) netip.Addr { return e.hdr.Src }
	case "DstIP":
		return func(e *env) netip.Addr { return e.hdr.Dst }
	}
	return nil
}

// load reads what lies at a place, as far as it is a scalar; structs, slices
// and maps stay places.
func (l *lowerer) load(p place) (value, error) {
	v := value{place: p}
	addr := p.addr
	switch k := p.typ.Kind(); k {
	case reflect.Bool:
		v.class = isBool
		v.b = func(e *env) bool { r := addr(e); return !r.isNil() && r.bool() }
		if off := p.offset; p.top {
			v.b = func(e *env) bool { return e.rec.at(off).bool() }
		}
	case reflect.Float64:
		v.class = isFloat
		v.f = func(e *env) float64 {
			if r := addr(e); !r.isNil() {
				return r.float()
			}
			return 0
		}
	case reflect.String:
		v.class = isText
		v.s = func(e *env) string {
			if r := addr(e); !r.isNil() {
				return r.text()
			}
			return ""
		}
	case reflect.Struct, reflect.Map:
		v.class = isPlace
	case reflect.Slice:
		v.class = isPlace
		if p.typ.Elem().Kind() == reflect.Uint8 {
			v.class = isBytes
			v.y = func(e *env) []byte {
				if r := addr(e); !r.isNil() {
					return r.bytes()
				}
				return nil
			}
		}
	case reflect.Pointer:
		if p.typ.Elem().Kind() != reflect.Struct {
			return value{}, cannot("a pointer to %s", p.typ.Elem())
		}
		v.class = isPlace
		v.place = place{typ: p.typ.Elem(), addr: func(e *env) ref {
			if r := addr(e); !r.isNil() {
				return r.pointer()
			}
			return ref{}
		}}
	default:
		return l.loadInt(v, k)
	}
	return v, nil
}

func (l *lowerer) loadInt(v value, k reflect.Kind) (value, error) {
	load := intLoader(k)
	if load == nil {
		return value{}, cannot("a field of type %s", v.typ)
	}
	v.class, v.kind = isInt, k
	addr := v.addr
	v.i = func(e *env) int {
		if r := addr(e); !r.isNil() {
			return load(r)
		}
		return 0
	}
	if off := v.offset; v.top && k == reflect.Int32 {
		v.i = func(e *env) int { return int(e.rec.at(off).int32()) }
	}
	return v, nil
}

// member reads base.field, base[index] and base["key"].
func (l *lowerer) member(n *ast.MemberNode) (value, error) {
	if n.Optional || n.Method {
		return value{}, cannot("optional chaining or a method")
	}
	if id, ok := n.Node.(*ast.IdentifierNode); ok && id.Value == "$env" {
		return value{}, cannot("$env")
	}
	base, err := l.node(n.Node)
	if err != nil {
		return value{}, err
	}
	if base.typ == nil {
		return value{}, cannot("a member of a computed value")
	}
	switch base.typ.Kind() {
	case reflect.Struct:
		return l.structField(base, n.Property)
	case reflect.Slice:
		return l.index(base, n.Property)
	case reflect.Map:
		return l.mapElement(base, n.Property)
	}
	return value{}, cannot("a member of %s", base.typ)
}

func (l *lowerer) structField(base value, property ast.Node) (value, error) {
	name, ok := property.(*ast.StringNode)
	if !ok {
		return value{}, cannot("a computed field name")
	}
	f, ok := base.typ.FieldByName(name.Value)
	if !ok || len(f.Index) != 1 {
		return value{}, cannot("the field %s", name.Value)
	}
	addr, off := base.addr, f.Offset
	return l.load(place{typ: f.Type, addr: func(e *env) ref {
		r := addr(e)
		if r.isNil() {
			e.fail(nilAccess)
			return r
		}
		return r.at(off)
	}})
}

// index reads an element; a negative index counts from the end, as in expr,
// and one out of range is a fault.
func (l *lowerer) index(base value, property ast.Node) (value, error) {
	at, err := l.node(property)
	if err != nil {
		return value{}, err
	}
	if at.class != isInt {
		return value{}, cannot("an index that is no integer")
	}
	addr, i, size := base.addr, at.i, base.typ.Elem().Size()
	return l.load(place{typ: base.typ.Elem(), addr: func(e *env) ref {
		r, n := addr(e), i(e)
		if r.isNil() {
			return r
		}
		if n < 0 {
			n += r.sliceLen()
		}
		if n < 0 || n >= r.sliceLen() {
			e.fail(outOfRange)
			return ref{}
		}
		return r.element(n, size)
	}})
}

func (l *lowerer) mapElement(base value, property ast.Node) (value, error) {
	if !isDictionary(base.typ) {
		return value{}, cannot("a map of type %s", base.typ)
	}
	key, err := l.node(property)
	if err != nil {
		return value{}, err
	}
	if key.class != isText {
		return value{}, cannot("a key that is no text")
	}
	addr, k := base.addr, key.s
	return textValue(func(e *env) string {
		if r := addr(e); !r.isNil() {
			return r.dictionary()[k(e)]
		}
		return ""
	})
}

func isDictionary(t reflect.Type) bool {
	return t != nil && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && t.Elem().Kind() == reflect.String
}

// pointer reads the element that the innermost predicate looks at.
func (l *lowerer) pointer(n *ast.PointerNode) (value, error) {
	if n.Name != "" || len(l.scopes) == 0 {
		return value{}, cannot("#%s", n.Name)
	}
	depth := len(l.scopes) - 1
	return l.load(place{typ: l.scopes[depth], addr: func(e *env) ref { return e.scope[depth] }})
}
