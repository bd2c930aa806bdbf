package decode_test

import (
	"reflect"
	"slices"

	"github.com/netcap-guard/netcap-guard/record"
)

// packetTypes are the types whose records this package makes.
func packetTypes() []record.Type {
	return []record.Type{record.TypeTCP, record.TypeUDP, record.TypeIPv4, record.TypeIPv6, record.TypeICMPv4,
		record.TypeICMPv6, record.TypeICMPv6NeighborSolicitation, record.TypeICMPv6NeighborAdvertisement,
		record.TypeARP, record.TypeEthernet, record.TypeDNS}
}

// everything asks for every field of all of them but Ethernet, which would
// stand beside all others.
func everything() record.Want {
	return allOf(slices.DeleteFunc(packetTypes(), func(t record.Type) bool { return t == record.TypeEthernet })...)
}

// allOf asks for every field of the types.
func allOf(types ...record.Type) record.Want {
	var w record.Want
	for _, t := range types {
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

// without leaves one field of a type out.
func without(all record.Want, typ record.Type, field string) record.Want {
	var w record.Want
	for _, t := range record.Types() {
		if !all.Types.Has(t) {
			continue
		}
		w.Add(t)
		for _, name := range fields(t) {
			if all.Field(t, name) && (t != typ || name != field) {
				w.Add(t, name)
			}
		}
	}
	return w
}
