package engine

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// revising is an answering firewall that counts what is lifted.
type revising struct {
	answering
	n atomic.Uint64
	// during is called while Block is under way; nil = nothing happens.
	during func()
}

func (r *revising) Revision() uint64 { return r.n.Load() }

func (r *revising) Block(ctx context.Context, req firewall.Request) (firewall.Result, error) {
	if r.during != nil {
		r.during()
	}
	return r.answering.Block(ctx, req)
}

// TestLiftedIsNoRepeat: what was answered before something was lifted holds
// nobody back, and what was held back is void.
func TestLiftedIsNoRepeat(t *testing.T) {
	lift := func(_ *Engine, r *revising) { r.n.Add(1) }
	for _, tc := range []struct {
		name string
		// packets are sources, 100 ms apart; "lift" is what lift does.
		packets string
		lift    func(*Engine, *revising)
		during  func(*revising)
		want    string // who was asked for, and when
	}{
		{"nothing is lifted", "1 1 lift 1 1", func(*Engine, *revising) {}, nil, "1 after 0s, 1 after 1s"},
		{"before anything waits", "1 lift 1 1", lift, nil, "1 after 0s, 1 after 200ms, 1 after 1s"},
		{"while one waits", "1 1 lift 1", lift, nil, "1 after 0s, 1 after 300ms"},
		{"with others that wait", "1 2 1 2 lift 3", lift, nil, "1 after 0s, 2 after 100ms, 3 after 500ms"},
		{"while one waits, and nothing more comes", "1 1 lift", lift, nil, "1 after 0s"},
		{"each time", "1 lift 1 lift 1 lift 1", lift, nil, "1 after 0s, 1 after 200ms, 1 after 400ms, 1 after 600ms"},
		{"the answer is new", "1 lift 1 1 1", lift, nil, "1 after 0s, 1 after 200ms, 1 after 1s"},
		{"while it is asked", "1 1 1", nil, func(r *revising) { r.n.Add(1) }, "1 after 0s, 1 after 100ms, 1 after 200ms"},
		{"another firewall", "1 1 lift 1", func(e *Engine, r *revising) { e.setBlocker(r) }, nil, "1 after 0s, 1 after 300ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block, config: {duration: 1h}}]}")
				r := &revising{answering: answering{begun: time.Now()}}
				if tc.during != nil {
					r.during = func() { tc.during(r) }
				}
				e := New(rs, Config{})
				e.setBlocker(r)
				w := e.NewWorker()
				for i, p := range strings.Fields(tc.packets) {
					if i > 0 {
						time.Sleep(100 * time.Millisecond)
					}
					if p == "lift" {
						tc.lift(e, r)
						continue
					}
					w.Evaluate(syn(uint64(i), "203.0.113."+p, 0))
					synctest.Wait()
				}
				time.Sleep(3 * repeatPeriod)
				synctest.Wait()
				got := strings.ReplaceAll(strings.Join(r.asked, ", "), "203.0.113.", "")
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Error(diff)
				}
				if n := e.Stats().ActionsWaiting; n != 0 {
					t.Errorf("%d wait", n)
				}
				if err := e.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestBlockedAgainAtOnce: whose block is lifted, and who goes on, is blocked
// with his next packet; so is who is whitelisted no longer.
func TestBlockedAgainAtOnce(t *testing.T) {
	const attacker = "203.0.113.1"
	addr := netip.MustParsePrefix(attacker + "/32")
	for name, lift := range map[string]func(m *firewall.Manager) error{
		"unblock": func(m *firewall.Manager) error { return m.UnblockIP(attacker) },
		"unblock all": func(m *firewall.Manager) error {
			_, err := m.UnblockAll(context.Background(), []netip.Prefix{addr})
			return err
		},
		"flush": func(m *firewall.Manager) error { return m.Flush() },
		"whitelisted for a moment": func(m *firewall.Manager) error {
			if err := m.AddToWhitelist(attacker); err != nil {
				return err
			}
			return m.RemoveFromWhitelist(attacker)
		},
		"whitelisted for a moment by a name": func(m *firewall.Manager) error {
			if err := m.SetWhitelist("name", []netip.Prefix{addr}); err != nil {
				return err
			}
			return m.SetWhitelist("name", nil)
		},
	} {
		for _, waiting := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/one waits %v", name, waiting), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { blockAgain(t, attacker, waiting, lift) })
			})
		}
	}
}

// blockAgain has the attacker blocked, the block lifted and the attacker go on,
// on a Manager whose kernel is in memory.
func blockAgain(t *testing.T, attacker string, waiting bool, lift func(*firewall.Manager) error) {
	m := inMemory(t)
	rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block, config: {duration: 1h}}]}")
	e := New(rs, Config{})
	e.SetFirewallManager(m)
	w := e.NewWorker()
	send := func() {
		w.Evaluate(syn(1, attacker, 0))
		synctest.Wait()
	}
	send()
	if waiting {
		time.Sleep(100 * time.Millisecond)
		send()
		if n := e.Stats().ActionsWaiting; n != 1 || !m.IsBlocked(attacker) {
			t.Fatalf("%d wait, blocked %v", n, m.IsBlocked(attacker))
		}
	}
	if err := lift(m); err != nil || m.IsBlocked(attacker) {
		t.Fatalf("%v, blocked %v", err, m.IsBlocked(attacker))
	}
	send()
	if !m.IsBlocked(attacker) {
		t.Error("the attacker went on and is not blocked")
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestWhitelistedDoesNotWait: an address that leaves the whitelist is blocked
// with the next packet, however often it was let go just before.
func TestWhitelistedDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const host = "203.0.113.1"
		m := inMemory(t)
		if err := m.AddToWhitelist(host); err != nil {
			t.Fatal(err)
		}
		rs, _ := mustLoad(t, "- {name: r, type: TCP, expression: SYN, actions: [{type: iptables_block}]}")
		e := New(rs, Config{})
		e.SetFirewallManager(m)
		w := e.NewWorker()
		for range 3 {
			w.Evaluate(syn(1, host, 0))
			synctest.Wait()
		}
		if n := e.GetActionStats()["actions_executed"]; n != 3 || m.GetStats()["whitelist_skip"] != 3 {
			t.Errorf("%d executed, %v", n, m.GetStats())
		}
		if err := m.RemoveFromWhitelist(host); err != nil {
			t.Fatal(err)
		}
		w.Evaluate(syn(1, host, 0))
		synctest.Wait()
		if !m.IsBlocked(host) {
			t.Error("not blocked")
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// inMemory is a Manager whose kernel is in memory; it ends with the test.
func inMemory(t *testing.T) *firewall.Manager {
	t.Helper()
	return managed(t, &firewall.ManagerConfig{
		DryRun: true, EnableIPv4: true, EnableIPv6: true,
		Protect: hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true},
	})
}
