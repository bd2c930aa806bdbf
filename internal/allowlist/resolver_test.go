package allowlist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a resolver whose answers the test writes: "ip4 name" or "ip6 name"
// to addresses. What it does not know does not exist.
type zone struct {
	mu      sync.Mutex // guards what follows
	answers map[string]any
	slow    time.Duration
	asked   []string
	running int
	most    int // lookups at once
	log     bytes.Buffer
}

func newZone(answers map[string]any) *zone { return &zone{answers: answers} }

func (z *zone) say(question string, answer any) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answers[question] = answer
}

// Write takes the log: tests read it beside the Resolver.
func (z *zone) Write(b []byte) (int, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.log.Write(b)
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	question := network + " " + host
	z.mu.Lock()
	z.asked = append(z.asked, question)
	z.running++
	z.most = max(z.most, z.running)
	answer, known := z.answers[question]
	slow := z.slow
	z.mu.Unlock()
	defer func() {
		z.mu.Lock()
		defer z.mu.Unlock()
		z.running--
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(slow):
	}
	if !known {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if err, ok := answer.(error); ok {
		return nil, err
	}
	var out []netip.Addr
	for a := range strings.FieldsSeq(answer.(string)) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

// run is a Resolver at work in a synctest bubble.
type run struct {
	*Resolver
	zone *zone
	mu   sync.Mutex // guards told
	told []string
}

// start returns after the first answers are told. It ends with the test.
func start(t *testing.T, z *zone, cfg Config) *run {
	t.Helper()
	cfg.Resolver, cfg.Logger = z, slog.New(slog.NewTextHandler(z, nil))
	r := &run{Resolver: New(cfg), zone: z}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Run(ctx, func(ps []netip.Prefix) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, strings.Trim(fmt.Sprint(ps), "[]"))
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		z.mu.Lock()
		defer z.mu.Unlock()
		if z.running != 0 {
			t.Errorf("%d lookups outlive Run", z.running)
		}
	})
	pass(gather + 1)
	return r
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// expect compares what was told since the last time.
func (r *run) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.told, want) {
		t.Errorf("%s: told %q, want %q", what, r.told, want)
	}
	r.told = nil
}

func (r *run) warnings(text string) int {
	r.zone.mu.Lock()
	defer r.zone.mu.Unlock()
	return strings.Count(r.zone.log.String(), text)
}

// minute is long enough for each name to be looked up again once.
const minute = DefaultInterval + DefaultInterval/5

func TestNamesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(map[string]any{
			"ip4 a.example": "192.0.2.2 192.0.2.1 192.0.2.2", "ip6 a.example": "2001:db8::1",
			"ip4 b.example": "192.0.2.1 ::ffff:192.0.2.3",
		})
		r := start(t, z, Config{Names: []string{"a.example", "b.example", "a.example"}})
		r.expect(t, "first", "192.0.2.1/32 192.0.2.2/32 192.0.2.3/32 2001:db8::1/128")
		pass(minute)
		r.expect(t, "nothing new")
		z.say("ip4 a.example", "192.0.2.9")
		pass(minute)
		r.expect(t, "changed", "192.0.2.1/32 192.0.2.3/32 192.0.2.9/32 2001:db8::1/128")
		z.say("ip6 a.example", &net.DNSError{Err: "no such host", IsNotFound: true})
		pass(minute)
		r.expect(t, "a family is given up", "192.0.2.1/32 192.0.2.3/32 192.0.2.9/32")
		if s := r.Stats(); s.Names != 2 || s.Failures != 0 || s.Failing != 0 || s.Lookups < 8 {
			t.Errorf("%+v", s)
		}
	})
}

func TestLastGoodAnswerStays(t *testing.T) {
	for _, tt := range []struct {
		name string
		four any
		six  any
		want string // told; "" = nothing changes
		says string
	}{
		{"both fail", errors.New("SERVFAIL"), errors.New("SERVFAIL"), "", "SERVFAIL"},
		{"the name is gone", nil, nil, "", "no address"},
		{"an empty answer", "", "", "", "no address"},
		{"one family fails, the other changes", "192.0.2.7", errors.New("SERVFAIL"), "192.0.2.7/32 2001:db8::1/128", "SERVFAIL"},
		{"one is gone, the other fails", nil, errors.New("SERVFAIL"), "", "SERVFAIL"},
		{"sinkhole", "0.0.0.0", "::", "", "no usable address"},
		{"loopback", "127.0.0.1 127.0.0.53", "::1", "", "no usable address"},
		{"loopback in disguise", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "", "no usable address"},
		{"multicast and reserved", "224.0.0.1 255.255.255.255 240.0.0.1 0.1.2.3", "ff02::1 fe80::1%eth0 fe80::2", "", "no usable address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZone(map[string]any{"ip4 a.example": "192.0.2.1", "ip6 a.example": "2001:db8::1"})
				r := start(t, z, Config{Names: []string{"a.example"}})
				r.expect(t, "first", "192.0.2.1/32 2001:db8::1/128")
				z.mu.Lock()
				delete(z.answers, "ip4 a.example")
				delete(z.answers, "ip6 a.example")
				z.mu.Unlock()
				for q, a := range map[string]any{"ip4 a.example": tt.four, "ip6 a.example": tt.six} {
					if a != nil {
						z.say(q, a)
					}
				}
				pass(10 * minute)
				if tt.want == "" {
					r.expect(t, "failure")
				} else {
					r.expect(t, "failure", tt.want)
				}
				if n := r.warnings("cannot be resolved"); n != 1 || r.warnings(tt.says) != 1 {
					t.Errorf("warned %d times, want once with %q:\n%s", n, tt.says, &z.log)
				}
				if s := r.Stats(); s.Failing != 1 || s.Failures < 10 {
					t.Errorf("%+v", s)
				}
				st := r.Status()
				if len(st) != 1 || !st[0].Failing || len(st[0].Prefixes) != 2 {
					t.Errorf("status %+v", st)
				}
				z.say("ip4 a.example", "192.0.2.8")
				z.say("ip6 a.example", "2001:db8::8")
				pass(minute)
				r.expect(t, "recovery", "192.0.2.8/32 2001:db8::8/128")
				if s := r.Stats(); s.Failing != 0 {
					t.Errorf("after recovery: %+v", s)
				}
			})
		})
	}
}

// TestFailuresAreTriedSoon: at boot the network comes up after the guard.
func TestFailuresAreTriedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(map[string]any{"ip4 a.example": errors.New("no route"), "ip6 a.example": errors.New("no route")})
		r := start(t, z, Config{Names: []string{"a.example"}})
		r.expect(t, "no network")
		z.say("ip4 a.example", "192.0.2.1")
		z.say("ip6 a.example", &net.DNSError{IsNotFound: true})
		pass(2 * retry)
		r.expect(t, "network", "192.0.2.1/32")
	})
	synctest.Test(t, func(t *testing.T) {
		z := newZone(map[string]any{"ip4 a.example": errors.New("no route"), "ip6 a.example": errors.New("no route")})
		r := start(t, z, Config{Names: []string{"a.example"}})
		pass(time.Hour)
		// 1 s, 2 s, 4 s ... 32 s, then each minute or so.
		if n := r.Stats().Lookups; n < 55 || n > 80 {
			t.Errorf("%d lookups in an hour of failures", n)
		}
	})
}

func TestAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many []string
		for i := range 5000 {
			many = append(many, fmt.Sprintf("10.0.%d.%d", i>>8, i&255))
		}
		z := newZone(map[string]any{"ip4 a.example": strings.Join(many, " "), "ip6 a.example": "2001:db8::1 0.0.0.0 :: 2001:db8::2"})
		r := start(t, z, Config{Names: []string{"a.example"}, MaxAddresses: 2})
		r.expect(t, "two of each family", "10.0.0.0/32 10.0.0.1/32 2001:db8::1/128 2001:db8::2/128")
		pass(5 * minute)
		r.expect(t, "the same two")
		if s := r.Stats(); s.Cut != 4998*s.Lookups || s.Ignored != s.Lookups || s.Failing != 0 {
			t.Errorf("%+v", s)
		}
		if a, b := r.warnings("too many addresses"), r.warnings("names no remote host"); a != 1 || b != 1 {
			t.Errorf("warned %d and %d times, want once each", a, b)
		}
	})
}

// TestSlowNamesDoNotHoldOthersUp: at most Parallel lookups run, each is bounded
// in time, and a name that hangs keeps no other from being looked up.
func TestSlowNamesDoNotHoldOthersUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]any{}
		var names []string
		for i := range 100 {
			names = append(names, fmt.Sprintf("h%d.example", i))
			answers[fmt.Sprintf("ip4 h%d.example", i)] = fmt.Sprintf("192.0.2.%d", i+1)
		}
		z := newZone(answers)
		z.slow = time.Second
		r := start(t, z, Config{Names: names, Parallel: 10})
		pass(25 * time.Second)
		if got := r.prefixes(); len(got) != 100 {
			t.Errorf("%d of 100 names after 100 lookups of 2 s, 10 at once", len(got))
		}
		z.mu.Lock()
		if z.most != 10 {
			t.Errorf("%d lookups at once, want 10", z.most)
		}
		z.slow = time.Hour
		z.mu.Unlock()
		pass(10 * minute)
		if got := r.prefixes(); len(got) != 100 {
			t.Errorf("%d of 100 names while the resolvers hang", len(got))
		}
		if n := r.warnings(context.DeadlineExceeded.Error()); n != 100 {
			t.Errorf("%d names were warned of as timed out", n)
		}
	})
}

// TestJitter: names that began together drift apart.
func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n name
		seen := map[time.Duration]bool{}
		for range 1000 {
			w := n.wait(time.Minute, false)
			if w < 54*time.Second || w > 66*time.Second {
				t.Fatalf("waits %v", w)
			}
			seen[w.Round(time.Second)] = true
		}
		if len(seen) < 10 {
			t.Errorf("only %d different waits", len(seen))
		}
	})
}

func TestSetNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(map[string]any{"ip4 a.example": "192.0.2.1", "ip4 b.example": "192.0.2.2", "ip4 c.example": "192.0.2.3"})
		r := start(t, z, Config{Names: []string{"a.example", "b.example"}})
		r.expect(t, "first", "192.0.2.1/32 192.0.2.2/32")
		z.say("ip4 b.example", errors.New("SERVFAIL"))
		r.SetNames([]string{"b.example", "c.example"})
		pass(2 * gather)
		r.expect(t, "one out, one in, one stays", "192.0.2.2/32 192.0.2.3/32")
		if n := r.Stats().Lookups; n != 3 {
			t.Errorf("%d lookups, want 3: what stays is not looked up anew", n)
		}
		r.SetNames(nil)
		pass(2 * gather)
		r.expect(t, "none left", "")
		pass(time.Hour)
		if n := r.Stats().Lookups; n != 3 {
			t.Errorf("%d lookups without a name", n)
		}
	})
}

// TestRunAgain: a Run that was ended in the middle of lookups can be followed
// by another, which begins where it left off.
func TestRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(map[string]any{"ip4 a.example": "192.0.2.1"})
		z.slow = time.Second
		r := New(Config{Names: []string{"a.example"}, Resolver: z})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx, func(ps []netip.Prefix) { t.Errorf("told %v", ps) }) }()
		pass(time.Second / 2)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
		if s := r.Stats(); s.Failures != 0 {
			t.Errorf("a lookup that was cut short counts as failure: %+v", s)
		}
		ctx, cancel = context.WithCancel(t.Context())
		told := make(chan []netip.Prefix)
		go func() { done <- r.Run(ctx, func(ps []netip.Prefix) { told <- ps }) }()
		if got, want := <-told, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}; !reflect.DeepEqual(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}
