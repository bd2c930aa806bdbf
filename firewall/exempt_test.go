package firewall

import (
	"net/netip"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// Who is exempt changes with whitelist and protection at once, and asking costs
// no memory and waits for nobody.
func TestExempt(t *testing.T) {
	m := dry(t, func(c *ManagerConfig) { c.Whitelist = []string{"fd09::5", "2001:db8::/32"} })
	check := func(addr string, want bool) {
		t.Helper()
		if got := m.Exempt(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t, want %t", addr, got, want)
		}
	}
	for addr, want := range map[string]bool{
		"fd09::5": true, "fd09::6": false, "2001:db8::1": true, "2001:db9::1": false, "fd09::5%eth0": true,
		"127.0.0.1": true, "::ffff:127.0.0.1": true, "192.0.2.1": false,
	} {
		check(addr, want)
	}
	if m.Exempt(netip.Addr{}) {
		t.Error("no address is exempt")
	}
	if err := m.AddToWhitelist("fd09::6"); err != nil {
		t.Fatal(err)
	}
	check("fd09::6", true)
	if err := m.RemoveFromWhitelist("fd09::6"); err != nil {
		t.Fatal(err)
	}
	check("fd09::6", false)
	gateway := hostaddr.Entry{Prefix: netip.MustParsePrefix("fd09::1/128"), Why: "default gateway"}
	if err := m.setProtected(t.Context(), append(hostaddr.Special(), gateway)); err != nil {
		t.Fatal(err)
	}
	check("fd09::1", true)
	m.mu.Lock()
	defer m.mu.Unlock()
	a := netip.MustParseAddr("fd09::7")
	if n := testing.AllocsPerRun(100, func() { m.Exempt(a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
