package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// drifting is a Manager with its monitor on a Memory that somebody else can
// tamper with.
type drifting struct {
	*Manager
	mem    *backend.Memory
	events []string
	log    bytes.Buffer
}

// startDrifting starts it with these hosts and prefixes blocked for an hour.
// It runs inside a bubble of synctest.
func startDrifting(t *testing.T, blocked ...string) *drifting {
	t.Helper()
	d, w := &drifting{}, &memoryWorld{}
	cfg := DefaultManagerConfig()
	cfg.Protect = hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}
	cfg.Whitelist = []string{"198.51.100.7"}
	cfg.Logger = slog.New(slog.NewTextHandler(&d.log, nil))
	cfg.OnEvent = func(e Event) {
		switch e.Kind {
		case Expired:
			d.events = append(d.events, "expired "+e.Block.IP)
		case Unblocked:
			d.events = append(d.events, "unblocked "+e.Block.IP+" by "+e.By)
		case Resynced:
			d.events = append(d.events, fmt.Sprintf("restored %d: %s", e.Restored, e.Reason))
		}
	}
	var err error
	if d.Manager, err = w.start(cfg); err != nil {
		t.Fatal(err)
	}
	d.mem = w.mem
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		checkBalance(t, d.Manager)
	})
	for _, b := range blocked {
		if _, err := d.Block(t.Context(), Request{Prefix: parsed(t, b), Duration: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * lookPause) // after the look at the start
	synctest.Wait()
	return d
}

func parsed(t *testing.T, s string) netip.Prefix {
	t.Helper()
	p, err := ParsePrefix(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func keysOf(t *testing.T, list ...string) []backend.Key {
	t.Helper()
	var out []backend.Key
	for _, s := range list {
		out = append(out, backend.Key{Prefix: parsed(t, s)})
	}
	return out
}

// inStep reports where the listing is not what the Memory enforces.
func (d *drifting) inStep(t *testing.T) {
	t.Helper()
	list, err := d.mem.List(t.Context())
	if err != nil {
		t.Errorf("the kernel: %v", err)
	}
	var kernel, listed []string
	for _, b := range list {
		kernel = append(kernel, b.Action.String()+" "+b.Key.String())
	}
	for _, i := range d.GetActiveBlocks() {
		listed = append(listed, i.Action+" "+i.key().String())
	}
	slices.Sort(kernel)
	slices.Sort(listed)
	if !slices.Equal(kernel, listed) {
		t.Errorf("listing %q, the kernel has %q", listed, kernel)
	}
}

// TestDrift: what somebody else does, what the guard says and what it does,
// the same whether the monitor tells of it, loses it, or nobody does.
func TestDrift(t *testing.T) {
	added := backend.Block{Key: keysOf(t, "203.0.113.1")[0], Rule: "by hand"}
	longer := backend.Block{Key: keysOf(t, "192.0.2.1")[0], Rule: "by hand"}
	beside := longer
	beside.Action = backend.Reject
	instead := backend.Tampering{Remove: keysOf(t, "192.0.2.1"), Add: []backend.Block{beside}}
	for _, tt := range []struct {
		name    string
		blocked []string
		do      backend.Tampering
		events  []string // a part of each
		stats   string
	}{
		{"one of a set is an unblock", []string{"192.0.2.1", "192.0.2.2"}, backend.Tampering{Remove: keysOf(t, "192.0.2.2")},
			[]string{"unblocked 192.0.2.2 by foreign"}, "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"the only one of its set is an unblock", []string{"192.0.2.1", "198.51.100.0/24"}, backend.Tampering{Remove: keysOf(t, "192.0.2.1")},
			[]string{"unblocked 192.0.2.1 by foreign"}, "active_blocks=1 blocks_created=2 blocks_removed=1"},
		{"two of three are two unblocks", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, backend.Tampering{Remove: keysOf(t, "192.0.2.1", "192.0.2.3")},
			[]string{"unblocked 192.0.2.1 by foreign", "unblocked 192.0.2.3 by foreign"}, "active_blocks=1 blocks_created=3 blocks_removed=2"},
		{"one each of two sets are two unblocks", []string{"192.0.2.1", "198.51.100.0/24"}, backend.Tampering{Remove: keysOf(t, "192.0.2.1", "198.51.100.0/24")},
			[]string{"unblocked", "unblocked"}, "blocks_created=2 blocks_removed=2"},
		{"all of a set of two is damage", []string{"192.0.2.1", "192.0.2.2", "198.51.100.0/24"}, backend.Tampering{Remove: keysOf(t, "192.0.2.1", "192.0.2.2")},
			[]string{"restored 3: "}, "active_blocks=3 blocks_created=3"},
		{"a jump that is gone is damage", []string{"192.0.2.1"}, backend.Tampering{Damage: "jump gone"},
			[]string{"restored 1: "}, "active_blocks=1 blocks_created=1"},
		{"a table that is gone is damage", []string{"192.0.2.1"}, backend.Tampering{Gone: true},
			[]string{"restored 1: "}, "active_blocks=1 blocks_created=1"},
		{"damage with nothing blocked", nil, backend.Tampering{Gone: true}, []string{"restored 0: "}, ""},
		{"a block of his is adopted", []string{"192.0.2.1"}, backend.Tampering{Add: []backend.Block{added}}, nil, "active_blocks=2 blocks_created=1"},
		{"so is another end", []string{"192.0.2.1"}, backend.Tampering{Add: []backend.Block{longer}}, nil, "active_blocks=1 blocks_created=1"},
		{"so is another action", []string{"192.0.2.1"}, instead, nil, "active_blocks=1 blocks_created=1"},
		{"of two for one address the first stays", []string{"192.0.2.1"}, backend.Tampering{Add: []backend.Block{beside}}, nil, "active_blocks=1 blocks_created=1"},
	} {
		for how, change := range map[string]func(*backend.Tampering){
			"told": func(*backend.Tampering) {}, "lost": func(c *backend.Tampering) { c.Lost = true }, "quiet": func(c *backend.Tampering) { c.Quiet = true },
		} {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := startDrifting(t, tt.blocked...)
					do := tt.do
					do.By = "somebody (77)"
					change(&do)
					d.mem.Tamper(do)
					synctest.Wait()
					if do.Quiet {
						if err := d.Check(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					if !slices.EqualFunc(d.events, tt.events, strings.HasPrefix) {
						t.Errorf("events %q, want %q", d.events, tt.events)
					}
					if how == "told" && d.Resyncs() > 0 && !strings.HasSuffix(d.events[0], "by somebody (77)") {
						t.Errorf("the event does not name who did it: %q", d.events)
					}
					if got := stats(d.Manager); got != tt.stats {
						t.Errorf("statistics %q, want %q", got, tt.stats)
					}
					if got := d.mem.Allowed(); !slices.Contains(got, parsed(t, "198.51.100.7")) {
						t.Errorf("allowed are %v", got)
					}
					d.inStep(t)
				})
			})
		}
	}
}

// TestOneWarning: damage is warned of once, and counted each time.
func TestOneWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := startDrifting(t, "192.0.2.1")
		for range 3 {
			d.mem.Tamper(backend.Tampering{Gone: true})
			synctest.Wait()
		}
		if n := strings.Count(d.log.String(), "level=WARN"); n != 1 || d.Resyncs() != 3 || !strings.Contains(d.log.String(), "netcap-guard flush") {
			t.Errorf("%d resyncs, %d warnings:\n%s", d.Resyncs(), n, d.log.String())
		}
	})
}

// TestRestoreAgain: what could not be put back is put back as soon as it can.
func TestRestoreAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := startDrifting(t, "192.0.2.1", "192.0.2.2")
		d.mem.SetCapacity(1)
		d.mem.Tamper(backend.Tampering{Gone: true})
		time.Sleep(time.Second)
		synctest.Wait()
		if d.Resyncs() != 0 || d.GetStats()["errors"] == 0 || !strings.Contains(d.log.String(), backend.ErrFull.Error()) {
			t.Errorf("%d resyncs, statistics %q:\n%s", d.Resyncs(), stats(d.Manager), d.log.String())
		}
		d.mem.SetCapacity(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if d.Resyncs() != 1 {
			t.Errorf("%d resyncs", d.Resyncs())
		}
		d.inStep(t)
	})
}

// TestChangeOnDamage: a change that meets damage before the monitor has told
// of it puts all back, and is made.
func TestChangeOnDamage(t *testing.T) {
	for name, do := range map[string]func(m *Manager) error{
		"block":     func(m *Manager) error { return m.BlockIP("192.0.2.9", nil) },
		"unblock":   func(m *Manager) error { return m.UnblockIP("192.0.2.1") },
		"whitelist": func(m *Manager) error { return m.AddToWhitelist("192.0.2.1") },
		"flush":     func(m *Manager) error { return m.Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := startDrifting(t, "192.0.2.1", "192.0.2.2")
				d.mem.Tamper(backend.Tampering{Gone: true, Quiet: true})
				if err := do(d.Manager); err != nil {
					t.Errorf("%v", err)
				}
				d.inStep(t)
				want := map[string]string{
					"block": "active_blocks=3 blocks_created=3", "unblock": "active_blocks=1 blocks_created=2 blocks_removed=1",
					"whitelist": "active_blocks=1 blocks_created=2 blocks_removed=1", "flush": "blocks_created=2 blocks_removed=2",
				}[name]
				if got := stats(d.Manager); got != want || d.Resyncs() != 1 {
					t.Errorf("statistics %q, want %q; %d resyncs", got, want, d.Resyncs())
				}
			})
		})
	}
}

// TestFull: a kernel that holds no more says so, and the listing stays what it
// enforces.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := startDrifting(t, "192.0.2.1", "192.0.2.2")
		d.mem.SetCapacity(2)
		for _, ip := range []string{"192.0.2.3", "192.0.2.4"} {
			res, err := d.Block(context.Background(), Request{Prefix: parsed(t, ip), Duration: time.Hour})
			if res.Outcome != Failed || !errors.Is(err, backend.ErrFull) {
				t.Errorf("a third of two: %s, %v", res.Outcome, err)
			}
			d.inStep(t)
		}
		if d.IsBlocked("192.0.2.3") || d.GetStats()["errors"] != 2 {
			t.Errorf("listing:\n%sstatistics %q", listing(d.Manager), stats(d.Manager))
		}
		if err := errors.Join(d.BlockIP("192.0.2.1", &BlockConfig{Duration: 2 * time.Hour}), d.UnblockIP("192.0.2.2"), d.BlockIP("192.0.2.3", nil)); err != nil {
			t.Errorf("an extension, and a new one in place of an old: %v", err)
		}
		d.inStep(t)
	})
}
