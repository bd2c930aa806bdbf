package firewall

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// Many requests of every kind on a real kernel, from a list and from many
// goroutines: what is listed is what the kernel enforces, now and for the next
// Manager.
func TestBulkOnTheKernel(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		n := 300
		if cfg.Backend == BackendNFT {
			n = 3000
		}
		cfg.CheckInterval = time.Hour
		m := open(t, cfg)
		reqs := make([]Request, n)
		for i := range reqs {
			req := Request{Prefix: numbered(i), Duration: time.Hour, Rule: "bulk", Action: backend.Actions()[i%4]}
			if i%7 == 0 {
				req.Prefix = backend.Host(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
			}
			if req.Action == backend.RateLimit {
				req.Limit = backend.Limit{Rate: 10, Per: time.Second, Burst: 5}
			}
			reqs[i] = req
		}
		reqs[11].Action, reqs[11].LogPrefix = backend.Log, "SSH: "
		reqs[13].Duration = -1
		for i, r := range m.BlockAll(t.Context(), reqs) {
			if bad := i == 13; (r.Err != nil) != bad || bad && !errors.Is(r.Err, backend.ErrInvalid) {
				t.Fatalf("request %d: %s, %v", i, r.Outcome, r.Err)
			}
		}
		failed := make(chan error)
		for i := range 40 {
			go func() {
				_, err := m.Block(t.Context(), Request{Prefix: numbered(60_000 + i/2), Duration: time.Hour + time.Duration(i)*time.Minute})
				failed <- err
			}()
		}
		for range 40 {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
		if got := m.GetStats()["active_blocks"]; got != uint64(n-1+20) {
			t.Errorf("%d blocks are active", got)
		}
		sameAsKernel(t, m, cfg)
		if err := m.Detach(); err != nil {
			t.Fatal(err)
		}
		next := open(t, cfg)
		if got := next.Adopted(); got != uint64(n-1+20) {
			t.Errorf("adopted %d", got)
		}
		sameAsKernel(t, next, cfg)
		if err := next.Flush(); err != nil {
			t.Error(err)
		}
	})
}

// A set that is full in the middle of a list: what fits is in the kernel and
// listed, the rest is named.
func TestFullKernel(t *testing.T) {
	onKernel(t, func(t *testing.T, cfg *ManagerConfig) {
		if cfg.Backend != BackendNFT {
			return // a chain is never full
		}
		cfg.MaxActiveBlocks = 100
		m := open(t, cfg)
		m.cfg.MaxActiveBlocks = 1000 // the kernel is the one to say no
		reqs := make([]Request, 250)
		for i := range reqs {
			reqs[i] = Request{Prefix: numbered(i), Duration: time.Hour}
			if i%2 == 1 {
				reqs[i].Action = backend.Reject // another set
			}
		}
		made := 0
		for i, r := range m.BlockAll(t.Context(), reqs) {
			switch {
			case r.Outcome == Created && r.Err == nil:
				made++
			case r.Outcome != Failed || !errors.Is(r.Err, backend.ErrFull):
				t.Fatalf("request %d: %s, %v", i, r.Outcome, r.Err)
			}
		}
		if made != 200 {
			t.Errorf("%d were made, want 200 in two sets", made)
		}
		sameAsKernel(t, m, cfg)
	})
}
