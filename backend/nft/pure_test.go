package nft

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
)

func allKinds() []kind {
	var out []kind
	for _, a := range backend.Actions() {
		for _, target := range []backend.Target{backend.Source, backend.Destination} {
			for _, v6 := range []bool{false, true} {
				k := kind{action: a, target: target, v6: v6}
				if a == backend.Log {
					k.prefix = [...]string{"NETCAP: ", "_3a_", "naïve café"}[len(out)%3]
				}
				for k.bits = 0; k.bits <= k.addrBits(); k.bits++ {
					out = append(out, k)
				}
			}
		}
	}
	return out
}

func TestSetNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range allKinds() {
		name := k.String()
		if got, ok := parseKind(name); !ok || got != k {
			t.Errorf("%s reads back as %+v (%t), want %+v", name, got, ok, k)
		}
		if seen[name] {
			t.Errorf("%s names two kinds", name)
		}
		seen[name] = true
	}
	seen[kind{action: backend.Log, bits: 32, prefix: "NETCAP: "}.String()] = true
	if !seen["drop_src4_32"] || !seen["reset_dst6_64"] || !seen["log_src4_32_NETCAP_3a_20"] {
		t.Error("the names in the documentation are not among them")
	}
	for _, other := range []string{
		"", "_", "drop", "drop_", "drop_src4", "drop_src4_", "drop_src4_00", "drop_src4_-1", "drop_src4_33", "drop_src6_129", "drop_src5_3",
		"drop_src4_032", "drop_src4_+1", "drop_src4_32_", "drop_src4_32x", "Drop_src4_32", "allow4", "drop_dst_24", "rate_src4_32", "log_src4_32", "log_src4_32_a b", "log_src4_32__41", "log_src4_32__0a", "log_src4_32__3A", "log_src4_32__3", "limit_src4_32_x",
		" drop_src4_32", "drop_src64_3", "drop_dstsrc4_3",
	} {
		if k, ok := parseKind(other); ok {
			t.Errorf("%q was read as %+v", other, k)
		}
	}
}

func FuzzSetName(f *testing.F) {
	f.Add("drop_src4_32")
	f.Add("reset_dst6_128")
	f.Add("log_src4_32_NETCAP_3a_20")
	f.Add("limit_dst4_0")
	f.Fuzz(func(t *testing.T, name string) {
		if k, ok := parseKind(name); ok && k.String() != name {
			t.Errorf("%q was read as %s", name, k)
		}
	})
}

// TestOrder: logs come first and rate limits last; among what comes together,
// within target and family, a longer prefix comes first. The order is total.
func TestOrder(t *testing.T) {
	kinds := allKinds()
	for _, a := range kinds {
		for _, b := range kinds {
			if a.target == b.target && a.rank() < b.rank() && a.compare(b) >= 0 {
				t.Errorf("%s does not come before %s", a, b)
			}
			if a.target == b.target && a.rank() == b.rank() && a.v6 == b.v6 && a.bits > b.bits && a.compare(b) >= 0 {
				t.Errorf("%s does not come before %s", a, b)
			}
			if (a.compare(b) == 0) != (a == b) || a.compare(b) != -b.compare(a) {
				t.Errorf("%s and %s have no order", a, b)
			}
		}
	}
}

func TestSpans(t *testing.T) {
	tests := []struct {
		name, prefixes, v4, v6 string
	}{
		{"none", "", "", ""},
		{"one", "192.0.2.1/32", "192.0.2.1-192.0.2.2", ""},
		{"nested and repeated", "10.0.0.0/8 10.1.0.0/16 10.0.0.0/8 10.255.255.255/32", "10.0.0.0-11.0.0.0", ""},
		{"touching", "10.0.0.0/9 10.128.0.0/9", "10.0.0.0-11.0.0.0", ""},
		{"apart", "192.0.2.3/32 192.0.2.1/32", "192.0.2.1-192.0.2.2 192.0.2.3-192.0.2.4", ""},
		{"to the end", "240.0.0.0/4 255.255.255.255/32 ffff::/16", "240.0.0.0-", "ffff::-"},
		{"everything", "0.0.0.0/0 192.0.2.1/32 ::/0", "0.0.0.0-", "::-"},
		{"both families", "::1/128 127.0.0.0/8 2001:db8::/32", "127.0.0.0-128.0.0.0", "::1-::2 2001:db8::-2001:db9::"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var prefixes []netip.Prefix
			for f := range strings.FieldsSeq(test.prefixes) {
				prefixes = append(prefixes, netip.MustParsePrefix(f))
			}
			for v6, want := range map[bool]string{false: test.v4, true: test.v6} {
				var got []string
				for _, s := range spans(prefixes, v6) {
					end := ""
					if s.end.IsValid() {
						end = s.end.String()
					}
					got = append(got, s.first.String()+"-"+end)
				}
				if strings.Join(got, " ") != want {
					t.Errorf("IPv6 %t: %v, want %s", v6, got, want)
				}
			}
		})
	}
}

// TestSpansCover: a random address is in a span exactly if it is in one of the
// prefixes, and spans neither overlap nor touch.
func TestSpansCover(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var prefixes []netip.Prefix
		for range r.IntN(12) {
			a := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(256))})
			prefixes = append(prefixes, netip.PrefixFrom(a, 20+r.IntN(13)).Masked())
		}
		got := spans(prefixes, false)
		for i := 1; i < len(got); i++ {
			if !got[i-1].end.Less(got[i].first) {
				t.Fatalf("spans %v of %v overlap or touch", got, prefixes)
			}
		}
		for i := range 512 {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			want, have := false, false
			for _, p := range prefixes {
				want = want || p.Contains(a)
			}
			for _, s := range got {
				have = have || !a.Less(s.first) && (!s.end.IsValid() || a.Less(s.end))
			}
			if want != have {
				t.Fatalf("%s: in the spans %v: %t, in the prefixes %v: %t", a, got, have, prefixes, want)
			}
		}
	}
}

func TestUserdataComment(t *testing.T) {
	for name, test := range map[string]struct{ udata, want string }{
		"ours":              {"\x00\x06hello\x00", "hello"},
		"without NUL":       {"\x00\x05hello", "hello"},
		"after a flag":      {"\x01\x04\x01\x00\x00\x00\x00\x03hi\x00", "hi"},
		"empty":             {"", ""},
		"empty comment":     {"\x00\x01\x00", ""},
		"no data":           {"\x00\x00", ""},
		"longer than told":  {"\x00\xffhello", ""},
		"a lone type":       {"\x00", ""},
		"unknown, too long": {"\x07\x80x\x00\x03hi\x00", ""},
	} {
		if got := comment([]byte(test.udata)); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// FuzzAttributes: whatever bytes come, reading them ends, and yields no byte
// that was not there.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4})
	f.Add([]byte{5, 0, 1, 0x80, 1, 0, 0, 0, 4, 0, 2, 0})
	f.Add([]byte{0, 255, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		for _, value := range attributes(data) {
			total += 4 + len(value)
		}
		if total > len(data) || len(comment(data)) > len(data) {
			t.Errorf("%d bytes out of %d", total, len(data))
		}
	})
}

func TestConfig(t *testing.T) {
	c, err := Config{}.complete()
	if err != nil || c.Table != "NETCAP" || !c.IPv4 || !c.IPv6 || c.RejectRate != 1000 || c.SetSize != 1_000_000 || c.Logger == nil {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	if c, err := (Config{IPv6: true}).complete(); err != nil || c.takes(false) || !c.takes(true) {
		t.Errorf("IPv6 alone: %+v, %v", c, err)
	}
	for _, bad := range []string{"a b", "x;y", "tab\t", "ü", strings.Repeat("x", 29), "a\x00"} {
		if _, err := New(Config{Table: bad}); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("table %q: %v, want ErrInvalid", bad, err)
		}
	}
}

// TestElsewhere pins what the backend says where there is no nftables.
func TestElsewhere(t *testing.T) {
	if runtime.GOOS == "linux" {
		return
	}
	b, err := New(Config{})
	if b != nil || !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "Linux only") {
		t.Errorf("New: %v, %v", b, err)
	}
	if err := new(Backend).Apply(context.Background(), backend.Change{}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("Apply: %v", err)
	}
}
