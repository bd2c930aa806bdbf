package decode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// compare describes how two records differ.
func compare(got, want any) string { return cmp.Diff(want, got) }

// message puts a DNS message into a frame.
func message(t testing.TB, msg []byte) []byte {
	t.Helper()
	return build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(53), raw(msg))
}

// question is a DNS query whose question section is given raw.
func question(section ...byte) []byte {
	return append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, section...)
}

func TestDNSAnswer(t *testing.T) {
	data := frames(t)["DNS answer"].data
	set := decoded(t, ethernet, data)
	rr := func(kind int32, r record.DNSResourceRecord) *record.DNSResourceRecord {
		r.Name, r.Type, r.Class, r.TTL = "www.example.com", kind, 1, 300
		return &r
	}
	want := record.DNS{
		Timestamp: 1700000000123456789, ID: 0x4321, QR: true, OpCode: 4, AA: true, TC: true, RD: true, RA: true, Z: 2, ResponseCode: 3,
		QDCount: 1, ANCount: 7, NSCount: 2, ARCount: 1,
		Questions: []*record.DNSQuestion{{Name: "www.example.com", Type: 1, Class: 1}},
		Answers: []*record.DNSResourceRecord{
			rr(1, record.DNSResourceRecord{IP: "192.0.2.7"}),
			rr(28, record.DNSResourceRecord{IP: "2001:db8::2"}),
			rr(5, record.DNSResourceRecord{CNAME: []byte("alias.example.net")}),
			rr(12, record.DNSResourceRecord{PTR: []byte("ptr.example.net")}),
			rr(15, record.DNSResourceRecord{MX: &record.DNSMX{Preference: 10, Name: "mail.example.net"}}),
			rr(33, record.DNSResourceRecord{SRV: &record.DNSSRV{Priority: 1, Weight: 2, Port: 5060, Name: []byte("sip.example.net")}}),
			rr(16, record.DNSResourceRecord{TXTs: [][]byte{[]byte("v=spf1"), []byte("-all")}}),
		},
		Authorities: []*record.DNSResourceRecord{
			rr(2, record.DNSResourceRecord{NS: []byte("ns1.example.net")}),
			rr(6, record.DNSResourceRecord{SOA: &record.DNSSOA{MName: []byte("ns1.example.net"), RName: []byte("admin.example.net"),
				Serial: 1, Refresh: 2, Retry: 3, Expire: 4, Minimum: 5}}),
		},
		Additionals: []*record.DNSResourceRecord{{Type: 41, Class: 1232, Data: []byte{}}},
		SrcIP:       "2001:db8::1", DstIP: "2001:db8::2", SrcPort: 53, DstPort: 50000, QueryNameLength: 15, SubdomainCount: 1,
		PacketSize: int32(len(data) - 14 - 40 - 8), EDNSPayloadSize: 1232, QueryNameTLD: "com", ResponseCodeName: "NXDOMAIN",
		IsNXDOMAIN: true, HasEDNS: true, QueryNameEntropy: set.DNS.QueryNameEntropy, CommunityID: set.DNS.CommunityID,
	}
	got := *set.Snapshot(record.TypeDNS).(*record.DNS)
	for _, list := range [][]*record.DNSResourceRecord{got.Answers, got.Authorities} {
		for _, r := range list {
			if int(r.DataLength) != len(r.Data) || r.DataLength == 0 {
				t.Errorf("data of type %d: %d, %d bytes", r.Type, r.DataLength, len(r.Data))
			}
			r.Data, r.DataLength = nil, 0
		}
	}
	if diff := compare(got, want); diff != "" {
		t.Error(diff)
	}
	if got.QueryNameEntropy < 3 || got.QueryNameEntropy > 4 || !strings.HasPrefix(got.CommunityID, "1:") {
		t.Errorf("entropy %v, Community ID %q", got.QueryNameEntropy, got.CommunityID)
	}
}

// Names come as other dissectors print them.
func TestDNSNames(t *testing.T) {
	label := func(s string) string { return string(rune(len(s))) + s }
	long := strings.Repeat(label(strings.Repeat("x", 63)), 4) + label("abcdefgh")
	for _, tt := range []struct {
		name, wire, want string
		bad              bool
	}{
		{"plain", label("www") + label("example") + "\x00", "www.example", false},
		{"root", "\x00", "", false},
		{"control bytes", "\x03a\x01b" + label("com") + "\x00", `a\001b.com`, false},
		{"delete", "\x02a\x7f\x00", `a\127`, false},
		{"high bytes and a dot", "\x06a.\\\xff\xc3\xa4\x00", "a.\\\xff\xc3\xa4", false},
		{"264 bytes", long + "\x00", strings.Repeat(strings.Repeat("x", 63)+".", 4) + "abcdefgh", true},
		{"pointer to itself", "\xc0\x0c", "", true},
		{"pointer forward", "\x03com\xc0\x20", "com", true},
		{"pointer back into the same name", "\x03com\xc0\x0c", "com", true},
		{"pointer cut", "\x03com\xc0", "com", true},
		{"extended label", "\x03com\x41abc\x00", "com", true},
		{"label beyond the message", "\x03com\x3fabc", "com", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg := question(append([]byte(tt.wire), 0, 16, 0, 1)...)
			set, err := try(ethernet, message(t, msg), 1500)
			if (err != nil) != tt.bad {
				t.Errorf("error %v", err)
			}
			if !set.Have.Has(record.TypeDNS) {
				t.Fatal("no record")
			}
			if set.DNS.IsMalformed != tt.bad {
				t.Errorf("malformed %v", set.DNS.IsMalformed)
			}
			if len(set.DNS.Questions) == 0 {
				if tt.want != "" {
					t.Error("no question")
				}
				return
			}
			if got := set.DNS.Questions[0].Name; got != tt.want {
				t.Errorf("name %q, want %q", got, tt.want)
			}
			if got := set.DNS.QueryNameLength; int(got) != len(tt.want) {
				t.Errorf("length %d", got)
			}
		})
	}
}

func TestDNSDerivedNames(t *testing.T) {
	for name, want := range map[string]record.DNS{
		"example.com":        {SubdomainCount: 0, QueryNameTLD: "com"},
		"a.b.c.example.com":  {SubdomainCount: 3, QueryNameTLD: "com"},
		"localhost":          {SubdomainCount: 0, QueryNameTLD: "localhost"},
		"deadbeef.t.example": {SubdomainCount: 1, QueryNameTLD: "example"},
	} {
		got := decoded(t, ethernet, build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(53), query(name))).DNS
		if got.SubdomainCount != want.SubdomainCount || got.QueryNameTLD != want.QueryNameTLD || int(got.QueryNameLength) != len(name) || got.HasEDNS || got.QR {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Broken messages give what stands before the break.
func TestDNSBroken(t *testing.T) {
	good := func() []byte {
		frame := frames(t)["DNS answer"].data
		return bytes.Clone(frame[14+40+8:])
	}()
	for n := 1; n < len(good); n++ {
		set, err := try(ethernet, message(t, good[:n]), 1500)
		var e *decode.Error
		if !errors.As(err, &e) || e.Layer != decode.LayerDNS {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if set.Have.Has(record.TypeDNS) != (n >= 12) || !set.Have.Has(record.TypeUDP) {
			t.Errorf("cut at %d: records %b", n, set.Have)
		}
		if n >= 40 && (len(set.DNS.Questions) != 1 || set.DNS.Questions[0].Name != "www.example.com") {
			t.Errorf("cut at %d: %+v", n, set.DNS.Questions)
		}
	}
	// Counts that promise more than there is.
	lying := bytes.Clone(good)
	binary.BigEndian.PutUint16(lying[4:], 65535)
	if set, err := try(ethernet, message(t, lying), 1500); err == nil || len(set.DNS.Questions) == 0 || set.DNS.QDCount != 65535 {
		t.Errorf("65535 questions: %d, %v", len(set.DNS.Questions), err)
	}
}

// The work that one message can cause is bounded: here every question points
// at a chain of pointers, each of which says a label more.
func TestDNSWorkIsBounded(t *testing.T) {
	msg := question()
	binary.BigEndian.PutUint16(msg[4:], 65535)
	last := 0
	for range 200 {
		at := len(msg)
		msg = append(append(msg, 63), bytes.Repeat([]byte("y"), 63)...)
		if last == 0 {
			msg = append(msg, 0)
		} else {
			msg = append(msg, 0xc0|byte(last>>8), byte(last))
		}
		msg = append(msg, 0, 1, 0, 1)
		last = at
	}
	for len(msg) < 60000 {
		msg = append(msg, 0xc0|byte(last>>8), byte(last), 0, 1, 0, 1)
	}
	frame := message(t, msg)
	set, err := try(ethernet, frame, len(frame))
	if err == nil || len(set.DNS.Questions) != 1024 {
		t.Errorf("%d questions, %v", len(set.DNS.Questions), err)
	}
	for _, q := range set.DNS.Questions {
		if len(q.Name) > 1024+64 {
			t.Fatalf("a name of %d bytes", len(q.Name))
		}
	}
}

// Only DNS's own port is DNS.
func TestDNSPort(t *testing.T) {
	for _, tt := range []struct {
		src, dst layers.UDPPort
		want     bool
	}{{53, 40000, true}, {40000, 53, true}, {53, 53, true}, {5353, 5353, false}, {40000, 54, false}} {
		data := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: tt.src, DstPort: tt.dst}, query("example.com"))
		if set := decoded(t, ethernet, data); set.Have.Has(record.TypeDNS) != tt.want {
			t.Errorf("%d -> %d: records %b", tt.src, tt.dst, set.Have)
		}
	}
}

// A rule that reads the questions alone does not make us read the answers.
func TestDNSReadsOnlyTheSectionsAskedFor(t *testing.T) {
	var want record.Want
	want.Add(record.TypeDNS, "Questions")
	data := frames(t)["DNS answer"].data
	cut := data[:len(data)-20] // in the additional section
	var set record.Set
	if err := decode.New(want).Decode(ethernet, cut, len(data), &set); err != nil {
		t.Error(err)
	}
	if len(set.DNS.Questions) != 1 || set.DNS.Answers != nil || set.DNS.HasEDNS {
		t.Errorf("%+v", set.DNS)
	}
	if !reflect.DeepEqual(set.Have, record.Of(record.TypeDNS)) {
		t.Errorf("records %b", set.Have)
	}
}

// A message whose every name is a pointer to a long one is spelt out no
// further than a real message could be long, and costs no memory but that.
func TestDNSBomb(t *testing.T) {
	long := strings.Repeat("\x3f"+strings.Repeat("x", 63), 15)
	msg := question([]byte(long + "\x00\x00\x10\x00\x01")...)
	msg[2], msg[6], msg[7] = 0x80, 0xff, 0xff // an answer with 65,535 records
	for len(msg) < 60000 {
		msg = append(msg, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 0xc0, 12)
	}
	set, err := try(ethernet, message(t, msg), 1500)
	var e *decode.Error
	if !errors.As(err, &e) || e.Layer != decode.LayerDNS || !set.DNS.IsMalformed {
		t.Errorf("%v, malformed %v", err, set.DNS.IsMalformed)
	}
	text := 0
	for _, r := range set.DNS.Answers {
		text += len(r.Name)
	}
	if text > 300<<10 || len(set.DNS.Answers) > 1024 {
		t.Errorf("%d answers with %d bytes of names", len(set.DNS.Answers), text)
	}
}
