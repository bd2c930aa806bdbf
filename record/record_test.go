package record_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

func TestTypesHaveNameRecordAndPlace(t *testing.T) {
	var set record.Set
	seen := map[any]bool{}
	for _, typ := range record.Types() {
		fresh, inSet := typ.New(), set.Record(typ)
		if reflect.TypeOf(fresh) != reflect.TypeOf(inSet) {
			t.Errorf("%v: New gives %T, Record %T", typ, fresh, inSet)
		}
		if got := reflect.TypeOf(fresh).Elem().Name(); got != typ.String() {
			t.Errorf("%v: record is a %s", typ, got)
		}
		if seen[inSet] {
			t.Errorf("%v shares its place in the set", typ)
		}
		seen[inSet] = true
		for _, spelling := range []string{typ.String(), "NC_" + typ.String(), strings.ToLower(typ.String())} {
			if got, ok := record.ParseType(spelling); !ok || len(got) != 1 || got[0] != typ {
				t.Errorf("ParseType(%q) = %v, %v", spelling, got, ok)
			}
		}
	}
	if len(seen) != 23 {
		t.Errorf("%d types, want 23", len(seen))
	}
	if _, ok := record.ParseType("none"); ok {
		t.Error("none parses as a record type")
	}
	if record.NoType.New() != nil || record.Type(200).String() != "none" || set.Record(record.NumTypes) != nil {
		t.Error("a number outside the list is not NoType")
	}
}

func TestServedAndBlockable(t *testing.T) {
	served := record.Of(record.TypeTCP, record.TypeUDP, record.TypeIPv4, record.TypeIPv6,
		record.TypeICMPv4, record.TypeICMPv6, record.TypeICMPv6NeighborSolicitation,
		record.TypeICMPv6NeighborAdvertisement, record.TypeARP, record.TypeEthernet, record.TypeDNS,
		record.TypeHTTP, record.TypeSSH, record.TypeTLSClientHello, record.TypeTLSServerHello)
	for _, typ := range record.Types() {
		if typ.Served() != served.Has(typ) {
			t.Errorf("%v served: %v", typ, typ.Served())
		}
		if want := typ != record.TypeARP && typ != record.TypeEthernet; typ.Blockable() != want {
			t.Errorf("%v blockable: %v", typ, typ.Blockable())
		}
	}
}

func TestEveryBlockableRecordHasAddressFields(t *testing.T) {
	set := record.Set{Header: record.Header{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("2001:db8::2")}}
	for _, typ := range record.Types() {
		if !typ.Blockable() {
			continue
		}
		v := reflect.ValueOf(set.Snapshot(typ)).Elem()
		src, dst := "SrcIP", "DstIP"
		if typ == record.TypePOP3 {
			src, dst = "ClientIP", "ServerIP"
		}
		if v.FieldByName(src).String() != "192.0.2.1" || v.FieldByName(dst).String() != "2001:db8::2" {
			t.Errorf("%v: snapshot has addresses %v, %v", typ, v.FieldByName(src), v.FieldByName(dst))
		}
	}
}

func TestSnapshotSharesNothing(t *testing.T) {
	data := []byte("payload")
	var set record.Set
	set.Header.Src = netip.MustParseAddr("192.0.2.1")
	set.DNS = record.DNS{
		SrcIP:     "198.51.100.1",
		Questions: []*record.DNSQuestion{{Name: "a.example", Type: 1}},
		Answers: []*record.DNSResourceRecord{{Name: "a.example", Data: data, TXTs: [][]byte{data[:3]},
			SOA: &record.DNSSOA{MName: data}}},
	}
	set.HTTP.RequestHeader = map[string]string{"a": "b"}
	got := set.Snapshot(record.TypeDNS).(*record.DNS)
	http := set.Snapshot(record.TypeHTTP).(*record.HTTP)
	want := set.Snapshot(record.TypeDNS).(*record.DNS)

	copy(data, "XXXXXXX")
	set.DNS.Questions[0].Name = "b.example"
	set.DNS.Answers[0].SOA.Serial = 9
	set.HTTP.RequestHeader["a"] = "c"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("snapshot changed with the set: %+v, want %+v", got, want)
	}
	if got.SrcIP != "198.51.100.1" || string(got.Answers[0].Data) != "payload" || string(got.Answers[0].SOA.MName) != "payload" {
		t.Errorf("snapshot %+v", got)
	}
	if http.RequestHeader["a"] != "b" {
		t.Error("snapshot shares a map")
	}
	if set.Snapshot(record.NoType) != nil {
		t.Error("snapshot of no type")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var set record.Set
	var sink any
	if n := testing.AllocsPerRun(100, func() { sink = set.Record(record.TypeTCP) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if sink.(*record.TCP) != &set.TCP {
		t.Error("Record does not point into the set")
	}
}

func TestProtocolName(t *testing.T) {
	for proto, want := range map[int32]string{6: "TCP", 17: "UDP", 1: "ICMP", 58: "IPv6-ICMP", 0: "HOPOPT", 200: "200", 300: "300", -1: "-1"} {
		if got := record.ProtocolName(proto); got != want {
			t.Errorf("ProtocolName(%d) = %q, want %q", proto, got, want)
		}
	}
	if h := (record.Header{}); h.ProtoName() != "" {
		t.Errorf("without IP the transport is %q", h.ProtoName())
	}
}

func TestWantAndMask(t *testing.T) {
	var w record.Want
	w.Add(record.TypeTCP, "SrcIP")
	w.Add(record.TypeTCP, "SYN")
	w.Add(record.TypeDNS)
	if !w.Field(record.TypeTCP, "SrcIP") || !w.Field(record.TypeTCP, "SYN") || w.Field(record.TypeUDP, "SrcIP") || w.Field(record.TypeDNS, "ID") {
		t.Error("Field answers wrongly")
	}
	m, got := w.Types, []record.Type{}
	for typ := m.Next(); typ != record.NoType; typ = m.Next() {
		got = append(got, typ)
	}
	if !reflect.DeepEqual(got, []record.Type{record.TypeTCP, record.TypeDNS}) {
		t.Errorf("mask walks %v", got)
	}
	for alias, want := range map[string]int{"ICMP": 2, "nc_tls": 2} {
		if types, ok := record.ParseType(alias); !ok || len(types) != want {
			t.Errorf("ParseType(%q) = %v", alias, types)
		}
	}
}
