package hostaddr

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func prefixes(es []Entry) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.Prefix.String()+" "+e.Why)
	}
	return out
}

func TestParseResolvConf(t *testing.T) {
	in := "# comment\nnameserver 192.0.2.53\nsearch example.org\n nameserver fe80::1%eth0\nnameserver\nnameserver nonsense\n"
	want := []string{"192.0.2.53/32 resolver", "fe80::1/128 resolver"}
	if got := prefixes(parseResolvConf([]byte(in))); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseSSHConnection(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"IPv4", "198.51.100.7 50122 192.0.2.1 22", "198.51.100.7/32 SSH peer"},
		{"IPv4-mapped", "::ffff:198.51.100.7 50122 ::ffff:192.0.2.1 22", "198.51.100.7/32 SSH peer"},
		{"IPv6 with a zone", "fe80::1%eth0 50122 fe80::2%eth0 22", "fe80::1/128 SSH peer"},
		{"empty", "", ""},
		{"not an address", "UNKNOWN 65535 UNKNOWN 65535", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(prefixes(parseSSHConnection(tt.in)), ","); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBroadcast(t *testing.T) {
	for _, tt := range []struct {
		in, want string
	}{
		{"192.0.2.17/24", "192.0.2.255"},
		{"10.1.2.3/12", "10.15.255.255"},
		{"192.0.2.16/30", "192.0.2.19"},
		{"192.0.2.16/31", ""},
		{"2001:db8::1/64", ""},
		{"192.0.2.16/0", "255.255.255.255"},
	} {
		got, ok := broadcast(netip.MustParsePrefix(tt.in))
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("broadcast(%s) = %v, %v; want %q", tt.in, got, ok, tt.want)
		}
	}
}

func TestSnapshotProtectsOwnAddresses(t *testing.T) {
	es, err := Snapshot(Config{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range es {
		found[e.Prefix.String()] = true
	}
	for _, want := range []string{"127.0.0.0/8", "::1/128", "224.0.0.0/4", "255.255.255.255/32"} {
		if !found[want] {
			t.Errorf("%s is not protected: %v", want, prefixes(es))
		}
	}
	none, err := Snapshot(Config{NoSpecial: true, NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true})
	if err != nil || len(none) != 0 {
		t.Errorf("everything switched off still protects %v (%v)", prefixes(none), err)
	}
}
