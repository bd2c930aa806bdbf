package iptables

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

// logged is a kernel log rule for what goes to a prefix.
func logged(prefix, text string) backend.Block {
	b := fresh(prefix, backend.Log)
	b.Log, b.Target, b.LogPrefix = true, backend.Destination, text
	return b
}

// TestLogFirst: a log rule lets packets go on, and comes before every block of
// the address, whichever was there first.
func TestLogFirst(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		b, _ := start(t, Config{Variant: v})
		for _, f := range []struct{ one, wide string }{{"10.99.7.1", "10.99.0.0/20"}, {"fd99:0:7::1", "fd99:0:7::/48"}} {
			log, drop := logged(f.one, "SSH: "), fresh(f.wide, backend.Drop)
			drop.Target = backend.Destination
			apply(t, b, add(log))
			want(t, "of 3 pass a log", send(t, f.one, 3), 3)
			want(t, "packets logged", packetsOf(t, b, log.Key), 3)
			apply(t, b, add(drop))
			second := logged(f.wide, "wide: ")
			apply(t, b, add(second))
			want(t, "of 4 pass a drop", send(t, f.one, 4), 0)
			want(t, "packets logged", packetsOf(t, b, log.Key), 7)
			want(t, "packets logged of the network", packetsOf(t, b, second.Key), 4)
			want(t, "packets dropped", packetsOf(t, b, drop.Key), 4)
			log.LogPrefix = "other"
			apply(t, b, add(log))
			want(t, "of 2 pass a drop", send(t, f.one, 2), 0)
			want(t, "packets logged", packetsOf(t, b, log.Key), 9)
			if _, err := b.List(t.Context()); err != nil {
				t.Errorf("the structure with log rules: %v", err)
			}
			apply(t, b, remove(drop))
			want(t, "blocks", count(t, b), 2)
			apply(t, b, remove(log, second))
		}
	})
}

// TestLogReaches: who listens to the group gets the packets, with the prefix.
func TestLogReaches(t *testing.T) {
	nstest.Tool(t, "tcpdump")
	eachVariant(t, func(t *testing.T, v string) {
		sink(t)
		b, _ := start(t, Config{Variant: v, LogGroup: 4242})
		apply(t, b, add(logged("10.99.7.1", "it's v4: "), logged("fd99:0:7::1", strings.Repeat("x", backend.MaxLogPrefix))))
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		var out bytes.Buffer
		dump := exec.CommandContext(ctx, "tcpdump", "-i", "nflog:4242", "-c", "4", "-U", "-w", "-")
		dump.Stdout = &out
		said, err := dump.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := dump.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(said)
		for lines.Scan() && !strings.Contains(lines.Text(), "listening on") {
		}
		want(t, "pass", send(t, "10.99.7.1", 2)+send(t, "fd99:0:7::1", 2)+send(t, "10.99.7.2", 2), 6)
		for lines.Scan() {
		}
		if err := dump.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"it's v4: \x00", strings.Repeat("x", backend.MaxLogPrefix) + "\x00"} {
			want(t, fmt.Sprintf("packets with prefix %q", text), strings.Count(out.String(), text), 2)
		}
	})
}

// TestLogPrefixes: another process reads every prefix exactly and leaves the
// rules alone, but for another group.
func TestLogPrefixes(t *testing.T) {
	eachVariant(t, func(t *testing.T, v string) {
		first, _ := newBackend(t, Config{Variant: v})
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		var all []backend.Block
		for _, text := range []string{
			"", " ", "NETCAP: ", "-c", "-j DROP", "!", "it's", "a  b", "é日本", "#x", "--nflog-group 3", ";", strings.Repeat("x", backend.MaxLogPrefix),
		} {
			for _, p := range []string{"192.0.2.%d", "2001:db8::%d"} {
				b := logged(fmt.Sprintf(p, len(all)+1), text)
				b.CreatedAt, b.ExpiresAt = created, created.Add(10*365*24*time.Hour)
				all = append(all, b)
			}
		}
		apply(t, first, add(all...))
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, v)
		second, _ := newBackend(t, Config{Variant: v})
		if err := second.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := second.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if g, w := texts(got), texts(all); g != w {
			t.Errorf("listed\n%s\nwant\n%s", g, w)
		}
		if after := snapshot(t, v); after != before || strings.Count(after, "--nflog-group 77") != len(all) {
			t.Errorf("adoption made of\n%s\nthis:\n%s", before, after)
		}
		if err := second.Detach(); err != nil {
			t.Fatal(err)
		}
		third, _ := start(t, Config{Variant: v, LogGroup: 9})
		if after := snapshot(t, v); strings.Count(after, "--nflog-group 9\n") != len(all) {
			t.Errorf("with group 9:\n%s", after)
		}
		apply(t, third, remove(all...))
		if left := snapshot(t, v); strings.Contains(left, "NFLOG") {
			t.Errorf("left behind:\n%s", left)
		}
	})
}
