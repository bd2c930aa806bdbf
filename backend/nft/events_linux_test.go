package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
)

const (
	ourPort   = 4242
	otherPort = 77
	inet      = unix.NFPROTO_INET
)

func attrs(t testing.TB, list ...netlink.Attribute) []byte {
	t.Helper()
	data, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// report is a message as the kernel sends it.
func report(typ uint16, port uint32, family byte, body []byte) []byte {
	b := make([]byte, 16, 20+len(body))
	binary.NativeEndian.PutUint32(b, uint32(20+len(body)))
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_NFTABLES<<8|typ)
	binary.NativeEndian.PutUint32(b[12:], port)
	return append(append(b, family, 0, 0, 0), body...)
}

func named(t testing.TB, table, name string) []byte {
	t.Helper()
	return attrs(t, netlink.Attribute{Type: 1, Data: text(table)}, netlink.Attribute{Type: 2, Data: text(name)})
}

func chainNamed(t testing.TB, name string) []byte {
	t.Helper()
	return attrs(t, netlink.Attribute{Type: 1, Data: text("NETCAP")}, netlink.Attribute{Type: unix.NFTA_CHAIN_NAME, Data: text(name)})
}

func elementsOf(t testing.TB, set string, keys ...string) []byte {
	t.Helper()
	var list []netlink.Attribute
	for _, k := range keys {
		value := attrs(t, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: netip.MustParseAddr(k).AsSlice()})
		key := attrs(t, netlink.Attribute{Type: unix.NFTA_SET_ELEM_KEY | unix.NLA_F_NESTED, Data: value})
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: key})
	}
	return append(named(t, "NETCAP", set), attrs(t, netlink.Attribute{Type: 3 | unix.NLA_F_NESTED, Data: attrs(t, list...)})...)
}

func generation(t testing.TB, port uint32, program string) []byte {
	t.Helper()
	return report(unix.NFT_MSG_NEWGEN, port, 0, attrs(t,
		netlink.Attribute{Type: unix.NFTA_GEN_ID, Data: []byte{0, 0, 0, 9}},
		netlink.Attribute{Type: unix.NFTA_GEN_PROC_PID, Data: []byte{0, 0, 4, 210}},
		netlink.Attribute{Type: unix.NFTA_GEN_PROC_NAME, Data: text(program)}))
}

// TestTranscript: each kind of transaction and the events it comes to.
func TestTranscript(t *testing.T) {
	other := func(typ uint16, body []byte) []byte { return report(typ, otherPort, inet, body) }
	end := generation(t, otherPort, "nft")
	del := func(set string, keys ...string) []byte {
		return other(unix.NFT_MSG_DELSETELEM, elementsOf(t, set, keys...))
	}
	tests := []struct {
		name     string
		messages [][]byte
		want     []string
	}{
		{"one element", [][]byte{del("drop_src4_32", "192.0.2.1"), end}, []string{"removed source 192.0.2.1/32: element deleted from set drop_src4_32"}},
		{"not at its end yet", [][]byte{del("drop_src4_32", "192.0.2.1")}, nil},
		{"destroyed", [][]byte{other(msgDestroySetElem, elementsOf(t, "reset_dst6_64", "2001:db8::")), end},
			[]string{"removed destination 2001:db8::/64: element deleted from set reset_dst6_64"}},
		{"several of one set", [][]byte{del("drop_src4_24", "192.0.2.0"), del("drop_src4_24", "198.51.100.0", "10.0.0.0"), end},
			[]string{"emptied source 192.0.2.0/24 source 198.51.100.0/24 source 10.0.0.0/24: 3 elements deleted from set drop_src4_24 at once"}},
		{"of several sets", [][]byte{del("drop_src4_32", "192.0.2.1"), del("drop_src6_128", "::1"), del("reject_src4_0", "0.0.0.0", "0.0.0.0"), end}, []string{
			"removed source 192.0.2.1/32 source ::1/128: element deleted from set drop_src4_32, drop_src6_128",
			"emptied source 0.0.0.0/0 source 0.0.0.0/0: 2 elements deleted from set reject_src4_0 at once"}},
		{"two transactions", [][]byte{del("drop_src4_32", "192.0.2.1"), end, del("drop_src4_32", "192.0.2.2"), end}, []string{
			"removed source 192.0.2.1/32: element deleted from set drop_src4_32", "removed source 192.0.2.2/32: element deleted from set drop_src4_32"}},
		{"ours", [][]byte{report(unix.NFT_MSG_DELSETELEM, ourPort, inet, elementsOf(t, "drop_src4_32", "192.0.2.1")),
			report(unix.NFT_MSG_DELTABLE, ourPort, inet, named(t, "NETCAP", "")), generation(t, ourPort, "guard")}, nil},
		{"another family", [][]byte{report(unix.NFT_MSG_DELTABLE, otherPort, unix.NFPROTO_IPV4, named(t, "NETCAP", "")), end}, nil},
		{"another table", [][]byte{other(unix.NFT_MSG_DELTABLE, named(t, "NETCAPX", "")), end}, nil},
		{"another set", [][]byte{del("mine", "192.0.2.1"), del("drop_src4_33", "192.0.2.1"), other(unix.NFT_MSG_DELSET, named(t, "NETCAP", "mine")), end}, nil},
		{"another chain", [][]byte{other(unix.NFT_MSG_NEWCHAIN, chainNamed(t, "mine")), other(unix.NFT_MSG_NEWRULE, named(t, "NETCAP", "mine")), end}, nil},
		{"host bits", [][]byte{del("drop_src4_24", "192.0.2.1"), end}, nil},
		{"a key of another length", [][]byte{del("drop_src4_24", "::1"), end}, nil},
		{"added", [][]byte{other(unix.NFT_MSG_NEWSETELEM, elementsOf(t, "drop_src4_32", "192.0.2.1")), del("drop_src4_32", "192.0.2.2"), end},
			[]string{"look : element added to set drop_src4_32"}},
		{"table", [][]byte{other(unix.NFT_MSG_DELRULE, named(t, "NETCAP", "source")), other(unix.NFT_MSG_DELSET, named(t, "NETCAP", "allow4")),
			other(unix.NFT_MSG_DELTABLE, named(t, "NETCAP", "")), end}, []string{"damaged : table deleted"}},
		{"table replaced", [][]byte{other(msgDestroyTable, named(t, "NETCAP", "")), other(unix.NFT_MSG_NEWTABLE, named(t, "NETCAP", "")), end}, []string{"damaged : table replaced"}},
		{"table changed", [][]byte{other(unix.NFT_MSG_NEWTABLE, named(t, "NETCAP", "")), end}, []string{"damaged : table changed"}},
		{"rules", [][]byte{other(unix.NFT_MSG_NEWRULE, named(t, "NETCAP", "refuse")), other(msgDestroyRule, named(t, "NETCAP", "output")), end}, []string{"damaged : rule added to chain refuse"}},
		{"a rule", [][]byte{other(unix.NFT_MSG_DELRULE, named(t, "NETCAP", "output")), end}, []string{"damaged : rule deleted from chain output"}},
		{"chains", [][]byte{other(msgDestroyChain, chainNamed(t, "source")), end, other(unix.NFT_MSG_NEWCHAIN, chainNamed(t, "prerouting")), end},
			[]string{"damaged : chain source deleted", "damaged : chain prerouting changed"}},
		{"sets", [][]byte{other(msgDestroySet, named(t, "NETCAP", "allow6")), end, other(unix.NFT_MSG_NEWSET, named(t, "NETCAP", "drop_src4_9")), end},
			[]string{"damaged : set allow6 deleted", "damaged : set drop_src4_9 added"}},
		{"allowed addresses", [][]byte{del("allow4", "192.0.2.1"), end}, []string{"damaged : set allow4 changed"}},
		{"cut off", [][]byte{append(del("drop_src4_32", "192.0.2.1"), end[:20]...)}, []string{"look : a message of the kernel was not understood"}},
		{"of another subsystem", [][]byte{{20, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			tr := &transcript{table: "NETCAP", port: ourPort, emit: func(e backend.Event) { got = append(got, line(e)) }}
			tr.feed(slices.Concat(test.messages...)) // as one read
			if !slices.Equal(got, test.want) {
				t.Errorf("in one read:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			got = nil
			tr.reset()
			for _, m := range test.messages {
				tr.feed(m)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("one after the other:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func line(e backend.Event) string {
	keys := make([]string, 0, len(e.Keys))
	for _, k := range e.Keys {
		keys = append(keys, k.String())
	}
	return fmt.Sprintf("%s %s: %s", e.Kind, strings.Join(keys, " "), e.Reason)
}

// TestTranscriptBounds: what a transaction makes us keep has a bound, and what
// was lost is not taken for a whole.
func TestTranscriptBounds(t *testing.T) {
	var got []backend.Event
	tr := &transcript{table: "NETCAP", port: ourPort, emit: func(e backend.Event) { got = append(got, e) }}
	body := elementsOf(t, "drop_src4_32", slices.Repeat([]string{"192.0.2.1"}, 1000)...)
	for range maxKeys/1000 + 2 {
		tr.feed(report(unix.NFT_MSG_DELSETELEM, otherPort, inet, body))
	}
	if tr.held != maxKeys {
		t.Errorf("held %d keys, want %d", tr.held, maxKeys)
	}
	tr.feed(generation(t, otherPort, "x\x1b[31m\n\xff"))
	if len(got) != 1 || got[0].Kind != backend.Look || got[0].By != "x?[31m?? (1234)" {
		t.Fatalf("events %+v", got)
	}
	tr.lost()
	tr.feed(report(unix.NFT_MSG_DELSETELEM, otherPort, inet, elementsOf(t, "drop_src4_32", "192.0.2.1")))
	tr.feed(generation(t, otherPort, "nft"))
	tr.feed(report(unix.NFT_MSG_DELSETELEM, otherPort, inet, elementsOf(t, "drop_src4_32", "192.0.2.1")))
	tr.feed(generation(t, otherPort, "nft"))
	var kinds []backend.EventKind
	for _, e := range got[1:] {
		kinds = append(kinds, e.Kind)
	}
	if want := []backend.EventKind{backend.Look, backend.Look, backend.Removed}; !slices.Equal(kinds, want) {
		t.Errorf("after a loss: %v, want %v", kinds, want)
	}
}

// FuzzTranscript: whatever comes, the transcript stays within its bounds and
// names only keys that a block can have.
func FuzzTranscript(f *testing.F) {
	end := generation(f, otherPort, "nft")
	for _, m := range [][]byte{
		report(unix.NFT_MSG_DELSETELEM, otherPort, inet, elementsOf(f, "drop_src4_32", "192.0.2.1", "192.0.2.2")),
		report(unix.NFT_MSG_DELSETELEM, otherPort, inet, elementsOf(f, "reset_dst6_64", "2001:db8::")),
		report(unix.NFT_MSG_NEWSETELEM, otherPort, inet, elementsOf(f, "allow4", "192.0.2.1")),
		report(unix.NFT_MSG_DELTABLE, otherPort, inet, named(f, "NETCAP", "")),
		report(unix.NFT_MSG_NEWCHAIN, otherPort, inet, chainNamed(f, "source")),
		report(msgDestroyRule, otherPort, inet, named(f, "NETCAP", "source")),
	} {
		f.Add(append(m, end...))
		f.Add(m[:len(m)-3])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tr := &transcript{table: "NETCAP", port: ourPort, emit: func(e backend.Event) {
			if e.Reason == "" || strings.ContainsAny(e.By, "\n\x1b") || (len(e.Keys) > 0) != (e.Kind == backend.Removed || e.Kind == backend.Emptied) {
				t.Errorf("event %+v", e)
			}
			for _, k := range e.Keys {
				if err := (backend.Change{Remove: []backend.Block{{Key: k}}}).Validate(); err != nil {
					t.Errorf("event %s names %s: %v", e.Kind, k, err)
				}
			}
		}}
		tr.feed(data)
		tr.feed(data)
		tr.feed(generation(t, otherPort, "nft"))
		if tr.held > len(data) || len(tr.keys) > 0 {
			t.Errorf("%d keys held of %d bytes", tr.held, len(data))
		}
	})
}
