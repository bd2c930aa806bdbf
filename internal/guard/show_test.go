package guard

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// TestForPeople: what a block does not say is a dash, never a hole.
func TestForPeople(t *testing.T) {
	seven := uint64(7)
	drop := BlockObject{
		Prefix: "192.0.2.1/32", Target: "source", Action: "DROP", Rule: "manual-block", Origin: "manual",
		Created: "2026-01-02T03:04:05.000000Z", Packets: &seven,
	}
	log := BlockObject{
		Prefix: "192.0.2.0/24", Target: "source", Action: "LOG", Reason: "5 in\n10s", Origin: "adopted",
		Created: "2026-01-02T03:04:05.000000Z", Packets: &seven, LogPrefix: "SSH: ",
	}
	for _, tc := range []struct {
		name  string
		print func(Streams) error
		want  string
	}{
		{"show", (&ShowObject{IP: "192.0.2.1", Blocked: true, Blocks: []BlockObject{drop, log}}).print, `192.0.2.1: blocked true, whitelisted false
  DROP 192.0.2.1 (source, permanent), since 2026-01-02T03:04:05.000000Z, 7 packets stopped
    rule manual-block, reason -, origin manual
  LOG "SSH: " 192.0.2.0/24 (source, permanent), since 2026-01-02T03:04:05.000000Z, 7 packets seen
    rule -, reason 5 in?10s, origin adopted
`},
		{"list", func(s Streams) error { return printBlocks(s, []BlockObject{drop, log}) }, `ADDRESS       TARGET  ACTION       LIFETIME   PACKETS  RULE          REASON
192.0.2.1     source  DROP         permanent  7        manual-block  -
192.0.2.0/24  source  LOG "SSH: "  permanent  7        -             5 in?10s
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := tc.print(Streams{Out: &out}); err != nil || out.String() != tc.want {
				t.Errorf("%v\n%s\nwant\n%s", err, out.String(), tc.want)
			}
		})
	}
}

// TestShowOfNoBlock: who is only slowed down or logged is shown, and is not
// blocked; of who is nothing is known the exit code tells.
func TestShowOfNoBlock(t *testing.T) {
	m, err := firewall.NewManager(&firewall.ManagerConfig{
		DryRun: true, Protect: hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }() // a dry run
	for _, req := range []firewall.Request{
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Action: backend.Log, LogPrefix: "SSH: "},
		{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Action: backend.RateLimit, Limit: backend.Limit{Rate: 1, Per: time.Second, Burst: 1}},
		{Prefix: netip.MustParsePrefix("192.0.2.3/32"), Action: backend.Drop},
	} {
		if _, err := m.Block(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	for addr, want := range map[string]struct {
		says string
		code int
	}{
		"192.0.2.1": {"blocked false", 0}, "192.0.2.2": {"blocked false", 0},
		"192.0.2.3": {"blocked true", 0}, "192.0.2.4": {"blocked false", ExitNotFound},
	} {
		var out bytes.Buffer
		v := &Verb{admin: &local{m: m}, std: Streams{Out: &out}}
		err := v.Show(t.Context(), netip.MustParseAddr(addr))
		if code := ExitCode(err); code != want.code || !strings.Contains(out.String(), want.says) {
			t.Errorf("%s: exit code %d (%v), says %s, want %d, %s", addr, code, err, out.String(), want.code, want.says)
		}
	}
}
