package nft_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// TestContractInPieces: the contract holds where every Change must be cut, and
// with the messages that kernels before 6.3 know.
func TestContractInPieces(t *testing.T) {
	if !beside(t, "") {
		return
	}
	small := func(b *nft.Backend) backend.Backend {
		nft.Shrink(b, 3)
		nft.OldKernel(b)
		return b
	}
	backendtest.Run(t, backendtest.Suite{
		Actions:    backend.Actions(),
		New:        func(t testing.TB) backend.Backend { return small(open(t, nft.Config{})) },
		NewFull:    func(t testing.TB, n int) backend.Backend { return open(t, nft.Config{SetSize: uint32(n)}) },
		Persistent: true,
		Snapshot:   ruleset,
		Foreign:    foreign(),
	})
}

// TestReload: what nft list prints can be loaded again, and is the same then.
func TestReload(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{Counters: true})
	apply(t, b, everything(t))
	for i, text := range []string{`"`, "new\nline", "semi; colon", "日本語のルール", strings.Repeat("é", 200), "{ } # \\ $x @y"} {
		one := block(t, fmt.Sprintf("203.0.113.%d", i), backend.Drop)
		one.Rule, one.Reason = text, text
		apply(t, b, backend.Change{Add: []backend.Block{one}})
	}
	listing := run(t, "list", "ruleset")
	before := list(t, b)
	run(t, "delete", "table", "inet", "NETCAP")
	load(t, listing)
	if got := ruleset(t); got != mask(listing) {
		t.Errorf("after loading it again:\n%s\nwant\n%s", got, mask(listing))
	}
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b); !slices.EqualFunc(got, before, same) {
		t.Errorf("after loading it again:\n%v\nwant\n%v", got, before)
	}
}

// list returns the blocks sorted by prefix, target and action.
func list(t testing.TB, b backend.Backend) []backend.Block {
	t.Helper()
	got, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b backend.Block) int {
		return strings.Compare(a.Key.String()+a.Action.String(), b.Key.String()+b.Action.String())
	})
	return got
}

// same compares two blocks but for a second of their ends: nft prints whole
// seconds in some versions.
func same(a, b backend.Block) bool {
	d := a.ExpiresAt.Sub(b.ExpiresAt).Abs()
	return a.Slot() == b.Slot() && a.Rule == b.Rule && a.Reason == b.Reason && a.CreatedAt.Equal(b.CreatedAt) &&
		a.Permanent() == b.Permanent() && d <= 2*time.Second && a.Limit == b.Limit && a.LogPrefix == b.LogPrefix
}

// TestForeignTables: nothing we do touches what others have in the kernel.
func TestForeignTables(t *testing.T) {
	nstest.Tool(t, "nft")
	load(t, `
table ip NETCAP {
	set drop_src4_32 { type ipv4_addr; elements = { 192.0.2.77 }; }
	chain prerouting { type filter hook prerouting priority -310; ip saddr @drop_src4_32 counter drop; }
}
table inet filter {
	chain input { type filter hook input priority 0; policy accept; tcp dport 22 accept; }
}
`)
	t.Cleanup(func() { run(t, "flush", "ruleset") })
	before := ruleset(t)
	b := start(t, nft.Config{})
	apply(t, b, everything(t))
	if got := list(t, b); len(got) != len(everything(t).Add) {
		t.Errorf("listed %d blocks: foreign ones among ours?", len(got))
	}
	for _, op := range []func() error{
		func() error { return b.Flush(t.Context()) },
		func() error { return b.Init(t.Context()) },
		func() error { return b.Close(t.Context()) },
	} {
		if err := op(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ruleset(t); got != before {
		t.Errorf("foreign tables changed:\n%s\nwant\n%s", got, before)
	}
}

// TestSecondInitChangesNothing: an intact structure is kept, rule handles and
// counters included.
func TestSecondInitChangesNothing(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{Counters: true})
	apply(t, b, everything(t))
	before := mask(run(t, "-a", "list", "ruleset"))
	second := open(t, nft.Config{Counters: true})
	for _, one := range []*nft.Backend{b, second} {
		if err := one.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := mask(run(t, "-a", "list", "ruleset")); got != before {
			t.Errorf("Init changed an intact table:\n%s\nwant\n%s", got, before)
		}
	}
	apply(t, second, backend.Change{Add: []backend.Block{block(t, "192.0.2.128/25", backend.Drop)}})
	listing := ruleset(t)
	if wide, narrow := strings.Index(listing, "== @drop_src4_24"), strings.Index(listing, "== @drop_src4_25"); narrow < 0 || narrow > wide {
		t.Errorf("the longer prefix is not looked up first:\n%s", listing)
	}
	if err := second.Detach(); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: whatever somebody does to the structure, Init puts it right and
// the blocks that are still there stay.
func TestDamage(t *testing.T) {
	nstest.Tool(t, "nft")
	damages := map[string]string{
		"rules flushed":       "flush table inet NETCAP",
		"a rule flushed":      "flush chain inet NETCAP source",
		"foreign rule first":  "insert rule inet NETCAP source accept",
		"foreign rule last":   "add rule inet NETCAP prerouting tcp dport 22 counter accept",
		"unknown expression":  "add rule inet NETCAP output rt classid 10 accept",
		"base chain gone":     "flush chain inet NETCAP prerouting; delete chain inet NETCAP prerouting",
		"other priority":      "flush chain inet NETCAP output; delete chain inet NETCAP output; add chain inet NETCAP output { type filter hook output priority 5; }",
		"regular, not base":   "flush chain inet NETCAP output; delete chain inet NETCAP output; add chain inet NETCAP output",
		"policy":              "add chain inet NETCAP prerouting { policy drop; }",
		"table asleep":        "add table inet NETCAP { flags dormant; }",
		"allow set gone":      "flush table inet NETCAP; delete set inet NETCAP allow4",
		"allow set of a kind": "flush table inet NETCAP; delete set inet NETCAP allow6; add set inet NETCAP allow6 { type ipv6_addr; }",
		"answers gone":        "flush table inet NETCAP; delete chain inet NETCAP refuse",
		"foreign chain, set":  "add chain inet NETCAP mine; add set inet NETCAP mine { type mark; }; flush chain inet NETCAP output",
		"block set of a kind": "add set inet NETCAP drop_src4_30 { type ipv4_addr; elements = { 192.0.2.252 comment \"by hand\" } }",
		"block set of a type": "add set inet NETCAP drop_src4_29 { type mark; }",
		"block set, no rule":  "add set inet NETCAP drop_src4_28 { type ipv4_addr; flags timeout; }",
		"jump to another":     "add chain inet NETCAP mine; flush chain inet NETCAP prerouting; add rule inet NETCAP prerouting jump mine",
		"anonymous set":       "add rule inet NETCAP output tcp dport { 22, 80 } accept",
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			b := start(t, nft.Config{Counters: true})
			apply(t, b, everything(t))
			want, before := ruleset(t), list(t, b)
			load(t, strings.ReplaceAll(damage, "; ", "\n")+"\n")
			if err := b.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := list(t, b)
			got = slices.DeleteFunc(got, func(b backend.Block) bool { return b.Prefix.Bits() == 30 })
			if !slices.EqualFunc(got, before, same) {
				t.Errorf("blocks after %q:\n%v\nwant\n%v", damage, got, before)
			}
			chains := func(listing string) string {
				_, rest, _ := strings.Cut(listing, "\tchain source")
				return strings.Join(slices.Sorted(strings.Lines(rest)), "")
			}
			if !strings.Contains(damage, "mine") && !strings.Contains(damage, "drop_src4_") && chains(ruleset(t)) != chains(want) {
				t.Errorf("structure after %q:\n%s\nwant\n%s", damage, ruleset(t), want)
			}
			again := mask(run(t, "-a", "list", "ruleset"))
			if err := b.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := mask(run(t, "-a", "list", "ruleset")); got != again {
				t.Errorf("another Init changed it again:\n%s\nwant\n%s", got, again)
			}
		})
	}
}

// TestGone: with the table taken away every operation says so, and Init brings
// it back with the allowed addresses.
func TestGone(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	apply(t, b, everything(t))
	run(t, "delete", "table", "inet", "NETCAP")
	one := backend.Change{Add: []backend.Block{block(t, "192.0.2.1", backend.Drop)}}
	wantError(t, b.Apply(t.Context(), one), backend.ErrGone)
	wantError(t, b.Apply(t.Context(), backend.Change{Add: []backend.Block{block(t, "192.0.2.0/27", backend.Drop)}}), backend.ErrGone)
	wantError(t, b.Apply(t.Context(), backend.Change{Allow: &[]netip.Prefix{}}), backend.ErrGone)
	_, err := b.List(t.Context())
	wantError(t, err, backend.ErrGone)
	wantError(t, b.Flush(t.Context()), backend.ErrGone)
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "list", "set", "inet", "NETCAP", "allow4"); !strings.Contains(got, "10.1.0.0/16") {
		t.Errorf("the allowed addresses did not come back:\n%s", got)
	}
	apply(t, b, one)
	if got := list(t, b); len(got) != 1 {
		t.Errorf("listed %v", got)
	}
	run(t, "delete", "table", "inet", "NETCAP")
	if err := b.Close(t.Context()); err != nil {
		t.Errorf("close without a table: %v", err)
	}
}

// TestForeignElements: what the nft program writes into our sets is read, and
// what nobody can read is passed over and counted.
func TestForeignElements(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	apply(t, b, backend.Change{Add: []backend.Block{block(t, "192.0.2.1", backend.Drop), block(t, "198.51.100.0/24", backend.Drop)}})
	run(t, "add", "element", "inet", "NETCAP", "drop_src4_32",
		`{ 203.0.113.1 timeout 2h comment "by hand", 203.0.113.2, 203.0.113.3 timeout 1h }`)
	run(t, "add", "element", "inet", "NETCAP", "drop_src4_24", "{ 198.51.100.9 }")
	run(t, "add", "set", "inet", "NETCAP", "mine", "{ type ipv4_addr; }")
	got := list(t, b)
	if len(got) != 5 || b.Skipped() != 2 {
		t.Fatalf("listed %d blocks, skipped %d, want 5 and 2 (the set, the element with host bits):\n%v", len(got), b.Skipped(), got)
	}
	byHand := got[slices.IndexFunc(got, func(b backend.Block) bool { return b.Prefix.Addr().String() == "203.0.113.1" })]
	if byHand.Reason != "by hand" || byHand.Rule != "" || byHand.ExpiresAt.Sub(byHand.CreatedAt) != 2*time.Hour ||
		time.Since(byHand.CreatedAt).Abs() > 5*time.Second {
		t.Errorf("the block added by hand reads %s, created %s", byHand, byHand.CreatedAt)
	}
	apply(t, b, backend.Change{Remove: []backend.Block{byHand}})
	if got := list(t, b); len(got) != 4 {
		t.Errorf("after removing it: %v", got)
	}
}

// TestMalformedUserdata: a comment field that is no comment field harms nobody
// but itself.
func TestMalformedUserdata(t *testing.T) {
	nstest.Tool(t, "nft")
	b := start(t, nft.Config{})
	apply(t, b, backend.Change{Add: []backend.Block{block(t, "192.0.2.1", backend.Drop)}})
	for i, udata := range [][]byte{{0}, {0, 255}, {0, 3, 'a'}, {7, 200, 1, 2}, {0, 0}, {1, 1, 0, 0, 9, 'x'}, {0, 2, 0xff, 0}, []byte(strings.Repeat("\x00", 200))} {
		addRaw(t, []byte{203, 0, 113, byte(i)}, udata)
	}
	got := list(t, b)
	if len(got) != 9 || b.Skipped() != 0 {
		t.Fatalf("listed %d blocks, skipped %d, want 9 and 0: they do block\n%v", len(got), b.Skipped(), got)
	}
	for _, one := range got {
		if strings.HasPrefix(one.Prefix.String(), "203.") && one.Rule != "" {
			t.Errorf("a rule name came out of malformed userdata: %s", one)
		}
	}
	apply(t, b, backend.Change{Remove: got})
	if left := list(t, b); len(left) != 0 {
		t.Errorf("left after removing all: %v", left)
	}
}

// addRaw adds an element to drop_src4_32 with any bytes as userdata, which the
// library cannot.
func addRaw(t *testing.T, key, udata []byte) {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	attrs := func(list ...netlink.Attribute) []byte {
		data, err := netlink.MarshalAttributes(list)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	const nested = unix.NLA_F_NESTED
	elem := attrs(
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_KEY | nested, Data: attrs(netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: key})},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_USERDATA, Data: udata})
	body := attrs(
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte("NETCAP\x00")},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte("drop_src4_32\x00")},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | nested, Data: attrs(netlink.Attribute{Type: unix.NFTA_LIST_ELEM | nested, Data: elem})})
	msg := func(typ netlink.HeaderType, family byte, resource byte, flags netlink.HeaderFlags, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: append([]byte{family, 0, 0, resource}, data...)}
	}
	_, err = c.SendMessages([]netlink.Message{
		msg(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.NFNL_SUBSYS_NFTABLES, 0, nil),
		msg(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM, unix.NFPROTO_INET, 0, netlink.Create|netlink.Acknowledge, body),
		msg(unix.NFNL_MSG_BATCH_END, 0, unix.NFNL_SUBSYS_NFTABLES, 0, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); err != nil {
		t.Fatalf("add element with userdata %x: %v", udata, err)
	}
}
