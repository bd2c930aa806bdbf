package record

import (
	"net/netip"
	"testing"
	"unicode"
)

const (
	flagSYN = int64(FlagSYN)
	flagACK = int64(FlagACK)
)

func TestHolds(t *testing.T) {
	set := &Set{Header: Header{Src: netip.MustParseAddr("::ffff:10.0.0.1"), Dst: netip.MustParseAddr("2001:db8::1")}}
	set.TCP = TCP{SYN: true, ACK: true, NS: true, DstPort: 22, SeqNum: 1 << 31, Payload: []byte("GET /Union"), FlagsStr: "SA"}
	for _, tc := range []struct {
		name string
		test Test
		want bool
	}{
		{"flags", Test{Field: FieldFlags, Mask: flagSYN | flagACK, Op: OneOf, Values: []int64{flagSYN}}, false},
		{"flags set", Test{Field: FieldFlags, Mask: flagSYN | flagNS, Op: OneOf, Values: []int64{flagSYN | flagNS}}, true},
		{"boolean", Test{Field: "SYN", Op: OneOf, Values: []int64{1}}, true},
		{"boolean off", Test{Field: "FIN", Op: OneOf, Values: []int64{0}}, true},
		{"one of", Test{Field: "DstPort", Op: OneOf, Values: []int64{21, 22}}, true},
		{"none of", Test{Field: "DstPort", Op: NoneOf, Values: []int64{21, 22}}, false},
		{"between", Test{Field: "DstPort", Op: Between, Values: []int64{22, 22}}, true},
		{"not between", Test{Field: "DstPort", Op: NotBetween, Values: []int64{1, 21}}, true},
		{"unsigned", Test{Field: "SeqNum", Op: Between, Values: []int64{1 << 31, 1 << 32}}, true},
		{"masked", Test{Field: "DstPort", Mask: 0xf, Op: OneOf, Values: []int64{6}}, true},
		{"text", Test{Field: "FlagsStr", Op: OneOf, Texts: []string{"SA"}}, true},
		{"other text", Test{Field: "FlagsStr", Op: NoneOf, Texts: []string{"SA"}}, false},
		{"part of bytes", Test{Field: "Payload", Op: ContainsAny, Texts: []string{"uNION"}}, true},
		{"no part", Test{Field: "Payload", Op: ContainsAny, Texts: []string{"select"}}, false},
		{"within", Test{Field: "SrcIP", Op: Within, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, true},
		{"not within", Test{Field: "DstIP", Op: NotWithin, Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, false},
		{"no such field", Test{Field: "Port", Op: NoneOf, Values: []int64{1}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.test.Holds(TypeTCP, set); got != tc.want {
				t.Errorf("%s: %v, want %v", tc.test, got, tc.want)
			}
		})
	}
}

func TestConditionsHold(t *testing.T) {
	set := &Set{TCP: TCP{DstPort: 22, SYN: true}}
	syn := Test{Field: FieldFlags, Mask: flagSYN | flagACK, Op: OneOf, Values: []int64{flagSYN}}
	port := func(n int64) Test { return Test{Field: "DstPort", Op: OneOf, Values: []int64{n}} }
	for _, tc := range []struct {
		name, text string
		c          Conditions
		want       bool
	}{
		{"never", "TCP: nothing (exact)", Conditions{Type: TypeTCP, Exact: true}, false},
		{"always", "TCP: anything (implied)", Conditions{Type: TypeTCP, Cases: []Case{{}}}, true},
		{"both tests", "TCP: Flags & 0x12 in [2] and DstPort in [22] (exact)",
			Conditions{Type: TypeTCP, Cases: []Case{{syn, port(22)}}, Exact: true}, true},
		{"one fails", "TCP: Flags & 0x12 in [2] and DstPort in [23] (implied)",
			Conditions{Type: TypeTCP, Cases: []Case{{syn, port(23)}}}, false},
		{"second case", "TCP: DstPort in [23] or DstPort in [22] (exact)",
			Conditions{Type: TypeTCP, Cases: []Case{{port(23)}, {port(22)}}, Exact: true}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.c.Hold(set); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
			if got := tc.c.String(); got != tc.text {
				t.Errorf("text %q, want %q", got, tc.text)
			}
		})
	}
}

func TestFold(t *testing.T) {
	for in, want := range map[string]string{
		"UNION": "union", "ſeLect": "select", "\u212aey": "key", "ÜBER": "Über", "": "", "\xc5": "\xc5", "\xe2\x84": "\xe2\x84", "a\xff": "a\xff",
	} {
		if got := string(Fold([]byte(in))); got != want {
			t.Errorf("Fold(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestFoldKnowsEveryLetter goes through Unicode: whatever some case mapping
// takes for an ASCII letter is folded to that letter.
func TestFoldKnowsEveryLetter(t *testing.T) {
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		for _, m := range []rune{unicode.ToLower(r), unicode.ToUpper(r), unicode.SimpleFold(r)} {
			if m >= 0x80 {
				continue
			}
			if got := string(Fold([]byte(string(r)))); got != string(unicode.ToLower(m)) {
				t.Errorf("%U is taken for %q, and folded to %q", r, m, got)
			}
		}
	}
}

// TestFlagBits holds the names to the bits that a record's flags have.
func TestFlagBits(t *testing.T) {
	all := TCP{FIN: true, SYN: true, RST: true, PSH: true, ACK: true, URG: true, ECE: true, CWR: true, NS: true}
	if all.flags() != 0x1ff || FlagBit("NS") != flagNS || FlagBit("ACK") != flagACK || FlagBit("DstPort") != 0 {
		t.Errorf("flags %#x, NS %#x", all.flags(), FlagBit("NS"))
	}
}
