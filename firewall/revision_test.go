package firewall

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

// TestRevision: what lifts blocks, changes their ends or changes who must not be
// blocked makes earlier answers void, and nothing else does. It has done so
// when the call returns, or the monitor has spoken.
func TestRevision(t *testing.T) {
	const host = "192.0.2.1"
	block := func(d *drifting, s string, life time.Duration) error {
		_, err := d.Block(context.Background(), Request{Prefix: parsed(t, s), Duration: life})
		return err
	}
	others := func(c backend.Tampering) func(*drifting) error {
		return func(d *drifting) error { d.mem.Tamper(c); return nil }
	}
	for _, tt := range []struct {
		name  string
		do    func(d *drifting) error
		moves bool
	}{
		{"a new block", func(d *drifting) error { return block(d, "192.0.2.9", time.Hour) }, false},
		{"an extension", func(d *drifting) error { return block(d, host, 2*time.Hour) }, false},
		{"a duplicate", func(d *drifting) error { return block(d, host, time.Minute) }, false},
		{"whitelisted", func(d *drifting) error { return block(d, "198.51.100.7", time.Hour) }, false},
		{"an end", func(d *drifting) error {
			err := block(d, "192.0.2.9", time.Second)
			time.Sleep(2 * time.Second)
			return err
		}, false},
		{"unblock", func(d *drifting) error { return d.UnblockIP(host) }, true},
		{"unblock of nobody", func(d *drifting) error { return d.UnblockIP("192.0.2.9") }, false},
		{"unblock all", func(d *drifting) error {
			_, err := d.UnblockAll(context.Background(), []netip.Prefix{parsed(t, host)})
			return err
		}, true},
		{"flush", func(d *drifting) error { return d.Flush() }, true},
		{"whitelist", func(d *drifting) error { return d.AddToWhitelist(host) }, true},
		{"whitelist what is there", func(d *drifting) error {
			return d.SetWhitelist(OriginConfig, []netip.Prefix{parsed(t, "198.51.100.7")})
		}, false},
		{"whitelist by a name", func(d *drifting) error { return d.SetWhitelist("name", []netip.Prefix{parsed(t, "192.0.2.9")}) }, true},
		{"whitelisted no longer", func(d *drifting) error { return d.RemoveFromWhitelist("198.51.100.7") }, true},
		{"protected", func(d *drifting) error {
			return d.setProtected(context.Background(), []hostaddr.Entry{{Prefix: parsed(t, host), Why: "own address"}})
		}, true},
		{"lifted by others", others(backend.Tampering{Remove: keysOf(t, host)}), true},
		{"lifted by others, lost", others(backend.Tampering{Remove: keysOf(t, host), Lost: true}), true},
		{"ended sooner by others", func(d *drifting) error {
			sooner := backend.Block{Key: keysOf(t, host)[0], Rule: "by hand", ExpiresAt: time.Now().Add(time.Minute)}
			return others(backend.Tampering{Add: []backend.Block{sooner}})(d)
		}, true},
		{"blocked by others", others(backend.Tampering{Add: []backend.Block{{Key: keysOf(t, "192.0.2.9")[0]}}}), false},
		{"damaged", others(backend.Tampering{Gone: true}), true},
		{"a look at the kernel", func(d *drifting) error { return d.Check(context.Background()) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := startDrifting(t, host, "192.0.2.2")
				before := d.Revision()
				if err := tt.do(d); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if moved := d.Revision() != before; moved != tt.moves {
					t.Errorf("revision %d after %d", d.Revision(), before)
				}
			})
		})
	}
}

// TestRevisionComesFirst: who has seen the new revision and asks meets the
// change, also where the kernel takes its time.
func TestRevisionComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowBackend{Memory: backend.NewMemory(nil), takes: time.Second}
		m := on(t, slow, nil)
		req := Request{Prefix: numbered(1), Duration: time.Hour}
		if _, err := m.Block(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		before, done := m.Revision(), make(chan error, 1)
		go func() {
			_, err := m.Unblock(context.Background(), numbered(1))
			done <- err
		}()
		time.Sleep(100 * time.Millisecond) // the kernel is busy with the unblocking
		if m.Revision() == before {
			t.Error("the revision comes after the change")
		}
		res, err := m.Block(t.Context(), req)
		if err != nil || res.Outcome != Created {
			t.Errorf("%v, %v", res.Outcome, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
