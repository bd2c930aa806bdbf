package backend_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]backend.Target{
		"": backend.Source, "source": backend.Source, "src": backend.Source, "SRC": backend.Source,
		"destination": backend.Destination, "dst": backend.Destination, "Destination": backend.Destination,
	} {
		if got, err := backend.ParseTarget(text); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"both", " src", "sourc", "input"} {
		if _, err := backend.ParseTarget(text); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", text, err)
		}
	}
	for _, target := range []backend.Target{backend.Source, backend.Destination} {
		if got, err := backend.ParseTarget(target.String()); err != nil || got != target {
			t.Errorf("%s reads back as %s, %v", target, got, err)
		}
	}
}

func TestParseAction(t *testing.T) {
	for text, want := range map[string]backend.Action{
		"": backend.Drop, "drop": backend.Drop, "DROP": backend.Drop, "Reject": backend.Reject, "reject-reset": backend.RejectReset,
		"REJECT_RESET": backend.RejectReset, "rate-limit": backend.RateLimit, "log": backend.Log,
	} {
		if got, err := backend.ParseAction(text); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"accept", "drop ", "rejectreset", "Action(0)", "ratelimit"} {
		if _, err := backend.ParseAction(text); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", text, err)
		}
	}
	for _, a := range backend.Actions() {
		if got, err := backend.ParseAction(a.String()); err != nil || got != a {
			t.Errorf("%s reads back as %s, %v", a, got, err)
		}
	}
}

func TestStronger(t *testing.T) {
	for _, a := range backend.Actions() {
		for _, b := range backend.Actions() {
			want := (a == backend.Drop || a == backend.Reject || a == backend.RejectReset) && b == backend.RateLimit
			if got := a.Stronger(b); got != want {
				t.Errorf("%s stronger than %s: %t, want %t", a, b, got, want)
			}
		}
	}
}

func TestCanonical(t *testing.T) {
	tests := map[string]string{
		"192.0.2.1/32": "192.0.2.1/32", "192.0.2.77/24": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0", "2001:db8::1/32": "2001:db8::/32",
		"::ffff:192.0.2.1/128": "192.0.2.1/32", "::ffff:192.0.2.77/120": "192.0.2.0/24", "::ffff:0.0.0.0/96": "0.0.0.0/0",
	}
	for in, want := range tests {
		got, err := backend.Canonical(netip.MustParsePrefix(in))
		if err != nil || got.String() != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
		if again, err := backend.Canonical(got); err != nil || again != got {
			t.Errorf("%s is not canonical: %s, %v", got, again, err)
		}
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:192.0.2.1/95"), netip.PrefixFrom(netip.MustParseAddr("::1"), 129)} {
		if got, err := backend.Canonical(bad); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%v: %s, %v, want ErrInvalid", bad, got, err)
		}
	}
	if got := backend.Host(netip.MustParseAddr("::ffff:192.0.2.1")); got.String() != "192.0.2.1/32" {
		t.Errorf("Host of a mapped address is %s", got)
	}
}

func TestLifetime(t *testing.T) {
	now := at(1_700_000_000_000)
	b := backend.Block{ExpiresAt: now.Add(time.Minute)}
	switch {
	case b.Permanent() || !(backend.Block{}).Permanent():
		t.Error("permanent is exactly the block without an end")
	case b.Expired(now.Add(time.Minute-1)) || !b.Expired(now.Add(time.Minute)):
		t.Error("a block has expired from its end on")
	case (backend.Block{}).Expired(now):
		t.Error("a permanent block has expired")
	case b.Remaining(now) != time.Minute || b.Remaining(now.Add(time.Hour)) != 0:
		t.Errorf("remaining %s and %s, want 1m0s and 0s", b.Remaining(now), b.Remaining(now.Add(time.Hour)))
	}
}

// TestChangeString compares with the golden file that a person can read.
// NETCAP_GUARD_UPDATE=1 writes it anew.
func TestChangeString(t *testing.T) {
	created := at(1_700_000_000_000)
	host := func(s string) backend.Key { return backend.Key{Prefix: backend.Host(netip.MustParseAddr(s))} }
	network := func(s string) backend.Key {
		return backend.Key{Prefix: netip.MustParsePrefix(s), Target: backend.Destination}
	}
	logged := host("192.0.2.4")
	logged.Log = true
	c := backend.Change{
		Allow: &[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Remove: []backend.Block{
			{Key: host("192.0.2.1")}, {Key: network("2001:db8::/32"), Action: backend.Reject},
		},
		Add: []backend.Block{
			{Key: host("192.0.2.1"), Action: backend.Reject, Rule: "Block SSH Brute Force", Reason: "10 SYN in 5m",
				CreatedAt: created, ExpiresAt: created.Add(2 * time.Hour)},
			{Key: network("198.51.100.0/24"), Rule: "manual-block"},
			{Key: host("2001:db8::1"), Action: backend.RejectReset, CreatedAt: created, ExpiresAt: created.Add(1500 * time.Millisecond)},
			{Key: host("192.0.2.3"), Action: backend.RateLimit, Limit: backend.Limit{Rate: 10, Per: time.Minute, Burst: 5}},
			{Key: logged, Action: backend.Log, LogPrefix: "SYN_FLOOD: "},
		},
	}
	for name, change := range map[string]backend.Change{"change.txt": c, "empty.txt": {}, "allow-nothing.txt": {Allow: &[]netip.Prefix{}}} {
		path := filepath.Join("testdata", name)
		got := change.String() + "\n"
		if os.Getenv("NETCAP_GUARD_UPDATE") == "1" {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: printed\n%swant\n%s", name, got, want)
		}
	}
	if c.Empty() || !(backend.Change{}).Empty() || (backend.Change{Allow: &[]netip.Prefix{}}).Empty() {
		t.Error("empty is exactly the change without removals, additions and allow list")
	}
}

func TestOpError(t *testing.T) {
	err := error(&backend.OpError{Backend: "nft", Op: "add element", Err: backend.ErrFull})
	if !errors.Is(err, backend.ErrFull) || err.Error() != "nft: add element: set is full" {
		t.Errorf("%v", err)
	}
}
