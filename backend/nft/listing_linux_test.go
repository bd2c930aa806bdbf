package nft_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// block makes a block of a prefix, or of an address, for an hour.
func block(t testing.TB, prefix string, a backend.Action) backend.Block {
	t.Helper()
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		p = backend.Host(netip.MustParseAddr(prefix))
	}
	now := time.Now()
	return backend.Block{
		Key: backend.Key{Prefix: p}, Action: a, Rule: "Block SSH Brute Force", Reason: "10 SYN in 300s",
		CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}
}

func towards(b backend.Block) backend.Block {
	b.Target = backend.Destination
	return b
}

func permanent(b backend.Block) backend.Block {
	b.ExpiresAt = time.Time{}
	return b
}

func limited(b backend.Block, rate string, burst int64) backend.Block {
	var err error
	if b.Limit, err = backend.ParseLimit(rate, burst); err != nil {
		panic(err)
	}
	return b
}

func logged(b backend.Block, prefix string) backend.Block {
	b.Log, b.LogPrefix = true, prefix
	return b
}

// everything is one change with each action, target and family, nested
// prefixes and allowed addresses.
func everything(t testing.TB) backend.Change {
	t.Helper()
	return backend.Change{
		Add: []backend.Block{
			block(t, "192.0.2.1", backend.Drop), block(t, "192.0.2.0/24", backend.Drop), block(t, "10.0.0.0/8", backend.Reject),
			permanent(block(t, "2001:db8::1", backend.Drop)), block(t, "2001:db8::/32", backend.RejectReset),
			towards(block(t, "198.51.100.7", backend.Drop)), towards(block(t, "2001:db8:9::/48", backend.Reject)),
			limited(block(t, "192.0.2.9", backend.RateLimit), "10/second", 5), limited(block(t, "2001:db8:7::/64", backend.RateLimit), "1/day", 5),
			limited(block(t, "192.0.2.0/24", backend.RateLimit), "1000000/second", 1<<32-1), permanent(limited(towards(block(t, "192.0.2.9", backend.RateLimit)), "90/hour", 1)),
			logged(block(t, "192.0.2.1", backend.Log), "NETCAP: "), logged(towards(block(t, "2001:db8::/32", backend.Log)), ""),
			logged(block(t, "192.0.2.2", backend.Log), "NETCAP: "), logged(block(t, "192.0.2.3", backend.Log), "it's {1}; #é "),
		},
		Allow: &[]netip.Prefix{
			netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("192.0.2.53/32"),
			netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("2001:db8:1::/64"),
		},
	}
}

// wantGolden compares with a file under testdata.
func wantGolden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if os.Getenv("NETCAP_GUARD_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the listing differs from %s:\n%s", path, got)
	}
}

// TestListing: what an administrator sees. NETCAP_GUARD_UPDATE=1 writes the
// files anew.
func TestListing(t *testing.T) {
	nstest.Tool(t, "nft")
	t.Run("after init", func(t *testing.T) {
		start(t, nft.Config{})
		wantGolden(t, "empty.nft", ruleset(t))
	})
	t.Run("everything", func(t *testing.T) {
		b := start(t, nft.Config{Counters: true})
		apply(t, b, everything(t))
		wantGolden(t, "everything.nft", ruleset(t))
	})
	t.Run("IPv4 only", func(t *testing.T) {
		b := start(t, nft.Config{IPv4: true, Table: "other-table", RejectRate: 5, SetSize: 10})
		apply(t, b, backend.Change{Add: []backend.Block{block(t, "192.0.2.1", backend.Reject)}})
		wantGolden(t, "ipv4.nft", ruleset(t))
		err := b.Apply(t.Context(), backend.Change{Add: []backend.Block{block(t, "2001:db8::1", backend.Drop)}})
		wantError(t, err, backend.ErrUnsupported)
	})
}

func mustAddr(text string) netip.Addr { return netip.MustParseAddr(text) }

func netipPrefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range text {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
