package netns

import (
	"fmt"
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// TestHonestWorkRaisesNothing: pages, a download over several connections,
// logins with a key and ordinary names are no attacks to the shipped rules. A
// scan that follows is.
func TestHonestWorkRaisesNothing(t *testing.T) {
	t.Parallel()
	f := newFlavour(t, "nft")
	w := newWorld(t)
	key := sshServer(t, w.victim)
	webServer(t, w.victim)
	resolver(t, w.victim, w.attacker)
	g := startGuard(t, f, w.victim.NS, shipped(t), "--workers", "2")
	page := fmt.Sprintf("http://%s/item?id=", w.victim.v4)
	for _, id := range []string{"1", "2&page=insert-coin", "3&sort=trade+union"} {
		curl(t, w.bystander, page+id)
	}
	// As a package manager does it: many files, few connections at a time.
	nstest.Run(t, w.bystander.NS, "curl", "-sS", "--fail", "--parallel", "--parallel-max", "8", "--output-dir", t.TempDir(),
		"-o", "package_#1.deb", fmt.Sprintf("http://%s/pool/package_[1-60].deb", w.victim.v4))
	for range 3 {
		fetch(t, w.bystander, w.victim, key)
	}
	for _, query := range [][]string{
		{"www.example.com", "A"}, {"www.example.com", "AAAA"}, {"example.com", "TXT"}, {"example.com", "MX"}, {"+tcp", "www.example.com"},
		{"_ldap._tcp.dc._msdcs.a-long-but-honest-name-of-a-directory.example.com", "A"},
	} {
		for range 4 {
			dig(t, w.bystander, w.victim, query...)
		}
	}
	mustReach(t, "bystander", w.bystander, w.victim.v4)
	mustReach(t, "bystander", w.bystander, w.victim.v6)
	// The guard has read all that came before when it blocks this.
	for _, to := range families(w) {
		scan(t, w.attacker, to)
		g.mustBlock(t, w.attacker.addr(to), scanRule)
	}
	curl(t, w.bystander, page+"4")
	g.mustAccuse(t, w.attacker.v4, w.attacker.v6)
	g.end(t)
}
