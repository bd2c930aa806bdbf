package nft_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/backend/backendtest"
	"github.com/netcap-guard/netcap-guard/backend/nft"
	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const attacker, attacker6 = "10.77.0.2", "fd77::2"

func network(t *testing.T) (*netlab.NS, backendtest.Prober) {
	t.Helper()
	peer := nstest.NS(t, nstest.Lab(t), "peer")
	return peer, backendtest.Veth(t, peer.Name, peer)
}

// TestDestinationBlockEatsAnswers: a destination block stops everything to the
// address, this host's reject answers to it included.
func TestDestinationBlockEatsAnswers(t *testing.T) {
	_, prober := network(t)
	b := start(t, nft.Config{})
	for from, guard := range map[string]string{attacker: backendtest.Guard4, attacker6: backendtest.Guard6} {
		for _, step := range []struct {
			add  backend.Block
			want backendtest.Outcome
		}{
			{block(t, from, backend.RejectReset), backendtest.Reset},
			{towards(block(t, from, backend.Drop)), backendtest.Silent},
		} {
			apply(t, b, backend.Change{Add: []backend.Block{step.add}})
			got := prober.Probe(t, b, backendtest.TCP, netip.MustParseAddr(from), netip.MustParseAddr(guard))
			if got != step.want {
				t.Errorf("%s after %s: %s, want %s", from, step.add, got, step.want)
			}
		}
	}
}

// TestRejectRate: above the rate, packets are dropped without an answer. The
// kernel's own counters say how many.
func TestRejectRate(t *testing.T) {
	nstest.Tool(t, "nft")
	const packets, rate = 300, 2
	peer, _ := network(t)
	b := start(t, nft.Config{Counters: true, RejectRate: rate})
	apply(t, b, backend.Change{Add: []backend.Block{block(t, attacker, backend.Reject)}})
	err := peer.Do(func() error {
		c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", attacker+":0")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		for range packets {
			if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(backendtest.Guard4), Port: 9}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rejected := int(dropped(t, b, backend.Reject, false))
	unanswered := counter(t, "limited", "limit rate")
	if rejected != packets || unanswered == 0 || unanswered >= packets {
		t.Errorf("of %d packets %d were to be rejected and %d of these got no answer for the rate of %d a second", packets, rejected, unanswered, rate)
	}
}

// dropped is what the backend says an action has stopped in a family.
func dropped(t *testing.T, b backend.Dropper, a backend.Action, v6 bool) uint64 {
	t.Helper()
	all, err := b.Dropped(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Action == a && d.Is6 == v6 {
			return d.Packets
		}
	}
	t.Fatalf("no count of %s (IPv6 %t) among %v", a, v6, all)
	return 0
}

// counter reads the packet counter of the chain's rule that contains text.
func counter(t *testing.T, chain, text string) int {
	t.Helper()
	for line := range strings.Lines(run(t, "list", "chain", "inet", "NETCAP", chain)) {
		m := regexp.MustCompile(`packets (\d+) bytes`).FindStringSubmatch(line)
		if !strings.Contains(line, text) || m == nil {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("chain %s has no rule with %s", chain, text)
	return 0
}

// TestOtherNamespace: with NetNS all work is done there and nothing here.
func TestOtherNamespace(t *testing.T) {
	nstest.Tool(t, "nft")
	other := nstest.NS(t, nstest.Lab(t), "other")
	f, err := os.Open("/run/netns/" + other.Name)
	if err != nil {
		t.Fatal(err)
	}
	before := ruleset(t)
	b := open(t, nft.Config{NetNS: int(f.Fd())})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, b, everything(t))
	if got := nstest.Run(t, other, "nft", "list", "ruleset"); !strings.Contains(got, "192.0.2.1 timeout") {
		t.Errorf("not in the other namespace:\n%s", got)
	}
	if got := ruleset(t); got != before {
		t.Errorf("in this namespace:\n%s", got)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := nstest.Run(t, other, "nft", "list", "ruleset"); got != "" {
		t.Errorf("left in the other namespace:\n%s", got)
	}
}
