package hostaddr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// deadline is how long a test waits for what the kernel tells within
// milliseconds; it is never waited for where all is well.
const deadline = 20 * time.Second

// ip changes the namespace of this test process, a line a command. Lines that
// begin with -6 are of that family, which a batch has as a whole.
func ip(t *testing.T, script string) {
	t.Helper()
	nstest.Tool(t, "ip")
	family, batch := "", ""
	run := func() {
		if batch == "" {
			return
		}
		cmd := exec.CommandContext(t.Context(), "ip", strings.Fields(family+" -batch -")...)
		cmd.Stdin = strings.NewReader(batch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s\nscript:\n%.1000s", family, err, out, batch)
		}
		batch = ""
	}
	for line := range strings.Lines(script) {
		rest, six := strings.CutPrefix(line, "-6 ")
		if six != (family == "-6") {
			run()
			family = map[bool]string{true: "-6"}[six]
		}
		batch += rest
	}
	run()
}

// link makes a link that is up, and takes it away with all that hangs on it. It
// has no other addresses than these, and nothing happens to it by itself: no
// address of the kernel's making, no detection of duplicates that ends later.
func link(t *testing.T, name string, addrs ...string) {
	t.Helper()
	script := fmt.Sprintf(`link add %[1]s type veth peer name %[1]sx
link set %[1]s addrgenmode none
link set %[1]sx addrgenmode none
link set %[1]sx up
link set %[1]s up
`, name)
	for _, a := range addrs {
		if strings.Contains(a, ":") {
			a += " nodad"
		}
		script += fmt.Sprintf("addr add %s dev %s\n", a, name)
	}
	ip(t, script)
	t.Cleanup(func() {
		if err := exec.Command("ip", "link", "del", name).Run(); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	})
}

// witness remembers what Follow told.
type witness struct {
	mu    sync.Mutex
	set   map[string]string // prefix -> why
	calls int
	woken chan struct{}
}

// follow runs Follow for the rest of the test.
func follow(t *testing.T, cfg Config) *witness {
	t.Helper()
	w := &witness{woken: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Follow(ctx, cfg, ready, w.tell) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("Follow: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Follow ended with %v", err)
		}
	})
	return w
}

func (w *witness) tell(es []Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set = map[string]string{}
	for _, e := range es {
		w.set[e.Prefix.String()] = e.Why
	}
	w.calls++
	hint(w.woken)
}

// await waits until all of yes and none of no are protected.
func (w *witness) await(t *testing.T, what string, yes, no []string) {
	t.Helper()
	give := time.After(deadline)
	for {
		w.mu.Lock()
		fits := !slices.ContainsFunc(yes, func(p string) bool { return w.set[p] == "" }) &&
			!slices.ContainsFunc(no, func(p string) bool { return w.set[p] != "" })
		set := fmt.Sprint(w.set)
		w.mu.Unlock()
		if fits {
			return
		}
		select {
		case <-w.woken:
		case <-give:
			t.Fatalf("%s: want %v and not %v in %s", what, yes, no, set)
		}
	}
}

func gatewaysOnly() Config {
	return Config{NoSpecial: true, NoOwn: true, NoResolvers: true, NoSSHPeer: true}
}

func TestFollowAddresses(t *testing.T) {
	link(t, "d0")
	w := follow(t, OwnOnly())
	for _, step := range []struct {
		name, script string
		yes, no      []string
	}{
		{"IPv4 comes", "addr add 192.0.2.10/24 dev d0", []string{"192.0.2.10/32", "192.0.2.255/32"}, nil},
		{"IPv6 comes", "addr add 2001:db8::10/64 dev d0 nodad", []string{"2001:db8::10/128"}, nil},
		{"a second of the network", "addr add 192.0.2.11/24 dev d0", []string{"192.0.2.10/32", "192.0.2.11/32"}, nil},
		{"IPv4 goes", "addr del 192.0.2.11/24 dev d0", []string{"192.0.2.10/32", "192.0.2.255/32"}, []string{"192.0.2.11/32"}},
		{"a peer is not us", "addr add 198.51.100.1 peer 198.51.100.2/32 dev d0", []string{"198.51.100.1/32"}, []string{"198.51.100.2/32"}},
		{"an IPv6 peer is not us", "addr add 2001:db8:1::1 peer 2001:db8:1::2/128 dev d0", []string{"2001:db8:1::1/128"}, []string{"2001:db8:1::2/128"}},
		{"a broadcast of its own", "addr add 10.9.8.7/16 brd 10.9.0.0 dev d0", []string{"10.9.8.7/32", "10.9.255.255/32", "10.9.0.0/32"}, nil},
		{"link down: IPv6 goes", "link set d0 down", []string{"192.0.2.10/32"}, []string{"2001:db8::10/128"}},
		{"link up", "link set d0 up\naddr add 2001:db8::10/64 dev d0 nodad", []string{"192.0.2.10/32", "2001:db8::10/128"}, nil},
		{"a link that is down", "link add d1 type veth peer name d1x\naddr add 203.0.113.1/24 dev d1", []string{"203.0.113.1/32"}, nil},
		{"link gone", "link del d1", []string{"192.0.2.10/32"}, []string{"203.0.113.1/32", "203.0.113.255/32"}},
	} {
		ip(t, step.script)
		w.await(t, step.name, step.yes, step.no)
	}
}

func TestFollowGateways(t *testing.T) {
	link(t, "d0", "192.0.2.10/24", "2001:db8::10/64", "198.51.100.10/24")
	w := follow(t, gatewaysOnly())
	for _, step := range []struct {
		name, script string
		yes, no      []string
	}{
		{"IPv4 comes", "route add default via 192.0.2.1", []string{"192.0.2.1/32"}, nil},
		{"IPv4 changes", "route replace default via 192.0.2.2", []string{"192.0.2.2/32"}, []string{"192.0.2.1/32"}},
		{"a second with another metric", "route add default via 192.0.2.3 metric 500", []string{"192.0.2.2/32", "192.0.2.3/32"}, nil},
		{"in another table", "route add default via 192.0.2.4 table 77", []string{"192.0.2.4/32"}, nil},
		{"multipath in a table beyond 255", "route add default table 4711 nexthop via 192.0.2.5 dev d0 weight 2 nexthop via 198.51.100.6 dev d0",
			[]string{"192.0.2.5/32", "198.51.100.6/32"}, nil},
		{"no default route", "route add 203.0.113.0/24 via 192.0.2.7\nroute add 0.0.0.0/1 via 192.0.2.8\nroute del default table 77",
			[]string{"192.0.2.2/32"}, []string{"192.0.2.4/32", "192.0.2.7/32", "192.0.2.8/32"}},
		{"on link instead", "route replace default dev d0 table 4711\nroute del default metric 500", nil,
			[]string{"192.0.2.3/32", "192.0.2.5/32", "198.51.100.6/32", "0.0.0.0/32"}},
		{"blackhole", "route add blackhole default table 78\nroute del default via 192.0.2.2", nil, []string{"192.0.2.2/32"}},
		{"IPv4 over an IPv6 gateway", "route add 0.0.0.0/0 via inet6 fe80::99 dev d0", []string{"fe80::99/128"}, nil},
		{"IPv6 comes", "-6 route add default via 2001:db8::1", []string{"2001:db8::1/128"}, nil},
		{"IPv6 changes to a link-local gateway", "-6 route replace default via fe80::1 dev d0", []string{"fe80::1/128"}, []string{"2001:db8::1/128"}},
		{"IPv6 multipath", "-6 route add default table 77 nexthop via 2001:db8::5 dev d0 nexthop via fe80::6 dev d0",
			[]string{"2001:db8::5/128", "fe80::6/128"}, nil},
		{"IPv6 goes", "-6 route del default\n-6 route flush table 77", []string{"fe80::99/128"},
			[]string{"fe80::1/128", "2001:db8::5/128", "fe80::6/128"}},
		{"the kernel drops IPv4 routes with the link, silently", "link set d0 down", nil, []string{"fe80::99/128"}},
		{"up again", "link set d0 up\nroute del default table 78\nroute add default via 192.0.2.1 src 192.0.2.10", []string{"192.0.2.1/32"}, nil},
		{"and with their source address", "addr del 192.0.2.10/24 dev d0", nil, []string{"192.0.2.1/32"}},
	} {
		ip(t, step.script)
		w.await(t, step.name, step.yes, step.no)
	}
}

// TestFollowNexthopObjects: with the compatible notation off, routes carry no
// gateway but a number, and a change of the object is no change of the route.
func TestFollowNexthopObjects(t *testing.T) {
	for _, key := range []string{"0", "1"} {
		t.Run("compat "+key, func(t *testing.T) {
			if err := os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte(key), 0o600); err != nil {
				t.Fatal(err)
			}
			link(t, "d0", "192.0.2.10/24", "2001:db8::10/64")
			w := follow(t, gatewaysOnly())
			ip(t, `nexthop add id 1 via 192.0.2.1 dev d0
nexthop add id 2 via 192.0.2.2 dev d0
nexthop add id 3 via 2001:db8::3 dev d0
nexthop add id 4 via 192.0.2.4 dev d0
nexthop add id 10 group 1/2
route add default nhid 10
-6 route add default nhid 3
route add 203.0.113.0/24 nhid 4`)
			w.await(t, "a group", []string{"192.0.2.1/32", "192.0.2.2/32", "2001:db8::3/128"}, []string{"192.0.2.4/32"})
			ip(t, "nexthop replace id 2 via 192.0.2.9 dev d0")
			w.await(t, "a member changes", []string{"192.0.2.1/32", "192.0.2.9/32"}, []string{"192.0.2.2/32"})
			ip(t, "nexthop del id 10\nnexthop del id 3")
			w.await(t, "gone", nil, []string{"192.0.2.1/32", "192.0.2.9/32", "2001:db8::3/128"})
		})
	}
}

func TestFollowManyChanges(t *testing.T) {
	link(t, "d0")
	w := follow(t, OwnOnly())
	var add, del strings.Builder
	var all []string
	for i := range 2000 {
		a := fmt.Sprintf("10.1.%d.%d/32", i/250, i%250+1)
		fmt.Fprintf(&add, "addr add %s dev d0\n", a)
		fmt.Fprintf(&del, "addr del %s dev d0\n", a)
		all = append(all, a)
	}
	ip(t, add.String())
	w.await(t, "2000 came", all, nil)
	ip(t, del.String())
	w.await(t, "2000 went", nil, all)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls > 400 {
		t.Errorf("4000 changes were told in %d calls: they are not gathered", w.calls)
	}
}

// TestNothingFallsBetween: what changes after the first reading and before
// Follow listens is told.
func TestNothingFallsBetween(t *testing.T) {
	link(t, "d0")
	w := &witness{woken: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		first := true
		done <- Follow(ctx, OwnOnly(), nil, func(es []Entry) {
			if first {
				ip(t, "addr add 192.0.2.10/24 dev d0")
			}
			first = false
			w.tell(es)
		})
	}()
	w.await(t, "changed during the first call", []string{"192.0.2.10/32"}, nil)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Follow ended with %v", err)
	}
}

// TestLostNotifications: a full buffer loses what came, never the fact.
func TestLostNotifications(t *testing.T) {
	link(t, "d0")
	var subs [2]*rtnetlink
	for i := range subs {
		s, err := subscribe()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.conn.SetReadBuffer(1); err != nil { // the kernel's least
			t.Fatal(err)
		}
		subs[i] = s
	}
	var script strings.Builder
	for i := range 100 {
		fmt.Fprintf(&script, "addr add 10.2.0.%d/32 dev d0\n", i+1)
	}
	ip(t, script.String())
	// The kernel tells of an overflow once, before what is left: the first
	// subscription shows that there was one, the second takes it.
	if err := subs[0].conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := subs[0].conn.Receive(); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("the buffer did not overflow: %v", err)
	}
	hints, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- subs[1].run(hints) }()
	select {
	case <-hints:
	case err := <-done:
		t.Fatalf("run ended with %v", err)
	case <-time.After(deadline):
		t.Fatal("no hint after the buffer overflowed")
	}
	for _, s := range subs {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err == nil {
		t.Error("run of a closed subscription ended without an error")
	}
}

// TestSilentLoss: the kernel says nothing of the routes that go with a link,
// and there is no address to go with it.
func TestSilentLoss(t *testing.T) {
	link(t, "d0", "192.0.2.10/24")
	w := follow(t, gatewaysOnly())
	ip(t, "route add default via 192.0.2.1")
	w.await(t, "up", []string{"192.0.2.1/32"}, nil)
	ip(t, "link set d0 down")
	w.await(t, "down", nil, []string{"192.0.2.1/32"})
}

// TestFilter: routes other than default routes never leave the kernel.
func TestFilter(t *testing.T) {
	link(t, "d0", "192.0.2.10/24", "2001:db8::10/64")
	s, err := subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	var four, six strings.Builder
	for i := range 50 {
		fmt.Fprintf(&four, "route add 10.3.%d.0/24 via 192.0.2.1\n", i)
		fmt.Fprintf(&six, "-6 route add 2001:db8:%x::/48 via 2001:db8::1\n", i+1)
	}
	ip(t, four.String()+six.String()+"route add default via 192.0.2.1\nroute del default\n-6 route add default via 2001:db8::1\n-6 route del default")
	if err := s.conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 4 {
		msgs, err := s.conn.Receive()
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		for _, m := range msgs {
			if m.Header.Type == unix.RTM_NEWROUTE || m.Header.Type == unix.RTM_DELROUTE {
				got = append(got, fmt.Sprintf("%s/%d", names(m), m.Data[1]))
			}
		}
	}
	if want := []string{"new4/0", "del4/0", "new6/0", "del6/0"}; !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
}

func names(m netlink.Message) string {
	kind := map[netlink.HeaderType]string{unix.RTM_NEWROUTE: "new", unix.RTM_DELROUTE: "del"}[m.Header.Type]
	return kind + map[byte]string{unix.AF_INET: "4", unix.AF_INET6: "6"}[m.Data[0]]
}

// TestFollowLeavesNothing: no goroutine and no file is left.
func TestFollowLeavesNothing(t *testing.T) {
	link(t, "d0", "192.0.2.10/24")
	files := func() int {
		t.Helper()
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	once := func(i int) {
		ctx, cancel := context.WithCancel(t.Context())
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- Follow(ctx, Config{}, ready, func([]Entry) {}) }()
		<-ready
		if i%2 == 0 { // end it in the middle of something
			ip(t, fmt.Sprintf("addr add 192.0.2.%d/24 dev d0", i+100))
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Follow ended with %v", err)
		}
	}
	once(0) // opens what stays open: the poller's own files
	// The collector closes forgotten files: not while they are counted.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fds, goroutines := files(), runtime.NumGoroutine()
	for i := range 20 {
		once(i + 1)
	}
	if n := files(); n > fds {
		t.Errorf("%d files are open, %d before", n, fds)
	}
	give := time.Now().Add(deadline) // an ended goroutine counts until it is scheduled out
	for runtime.NumGoroutine() > goroutines {
		if time.Now().After(give) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
		runtime.Gosched()
	}
}

func TestSnapshotOfManyAddresses(t *testing.T) {
	link(t, "d0")
	var script strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&script, "addr add 2001:db8:9::%x/64 dev d0 nodad\n", i+1)
	}
	ip(t, script.String()+"route add default dev d0")
	es, err := Snapshot(Config{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range es {
		if strings.HasPrefix(e.Prefix.String(), "2001:db8:9:") && e.Why == ownAddress {
			n++
		}
	}
	if n != 1000 {
		t.Errorf("%d of 1000 addresses found", n)
	}
}

// TestSnapshotUnderChurn: what is there all the time is found all the time,
// however much comes and goes while the kernel lists it.
func TestSnapshotUnderChurn(t *testing.T) {
	link(t, "d0", "192.0.2.10/24", "2001:db8::10/64")
	var stable, churn strings.Builder
	for i := range 300 {
		fmt.Fprintf(&stable, "addr add 10.4.%d.%d/32 dev d0\n", i>>8, i&255)
	}
	ip(t, stable.String()+"route add default via 192.0.2.1\n-6 route add default via 2001:db8::1")
	for range 5 {
		for _, verb := range []string{"add", "del"} {
			for i := range 200 {
				fmt.Fprintf(&churn, "addr %s 10.5.0.%d/32 dev d0\n", verb, i)
				fmt.Fprintf(&churn, "route %s default via 192.0.2.%d table %d\n", verb, i+11, i+1000)
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ip(t, churn.String())
	}()
	defer func() { <-done }()
	snapshots := 0
	for over := false; !over; snapshots++ {
		select {
		case <-done:
			over = true
		default:
		}
		es, err := Snapshot(Config{NoSpecial: true, NoResolvers: true, NoSSHPeer: true})
		if err != nil {
			t.Fatal(err)
		}
		own, gates := 0, 0
		for _, e := range es {
			switch p := e.Prefix.String(); {
			case strings.HasPrefix(p, "10.4."):
				own++
			case p == "192.0.2.1/32", p == "2001:db8::1/128":
				gates++
			}
		}
		if own != 300 || gates != 2 {
			t.Fatalf("snapshot %d: %d of 300 stable addresses, %d of 2 gateways", snapshots, own, gates)
		}
	}
	t.Logf("%d snapshots", snapshots)
}
