package firewall

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/hostaddr"
)

func TestUnblockAll(t *testing.T) {
	m, err := NewManager(&ManagerConfig{DryRun: true, Protect: hostaddr.Config{NoOwn: true, NoGateways: true, NoResolvers: true, NoSSHPeer: true}})
	if err != nil {
		t.Fatal(err)
	}
	base := netip.MustParseAddr("10.0.0.0")
	var all []netip.Prefix
	var reqs []Request
	for range maxBatch + 5 {
		base = base.Next()
		all = append(all, backend.Host(base))
		reqs = append(reqs, Request{Prefix: backend.Host(base), Duration: time.Hour})
	}
	for _, r := range m.BlockAll(t.Context(), reqs) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	two := Request{Prefix: all[0], Target: backend.Destination}
	if _, err := m.Block(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	stranger := netip.MustParsePrefix("192.0.2.1/32")
	got, err := m.UnblockAll(t.Context(), append([]netip.Prefix{stranger, all[0], all[0]}, all[2:]...))
	if err != nil || len(got) != len(all)+1 {
		t.Fatalf("%d answers, %v", len(got), err)
	}
	for i, want := range []int{0, 2, 0, 1, 1} {
		if len(got[i]) != want {
			t.Errorf("answer %d has %+v, want %d blocks", i, got[i], want)
		}
	}
	if last := got[len(got)-1]; len(last) != 1 || last[0].Prefix != all[len(all)-1] {
		t.Errorf("the last answer is %+v", last)
	}
	if left := m.GetActiveBlocks(); len(left) != 1 || left[0].Prefix != all[1] {
		t.Errorf("left are %+v", left)
	}
	if s := m.GetStats(); s["blocks_removed"] != uint64(len(all)) {
		t.Errorf("%v", s)
	}
	if _, err := m.UnblockAll(t.Context(), []netip.Prefix{{}}); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("no prefix: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.UnblockAll(t.Context(), all[:1]); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
