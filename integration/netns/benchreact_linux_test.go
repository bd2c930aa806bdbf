package netns

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

const (
	reactTrials    = 300
	reactThreshold = 10
	// reactProbes are sent behind the packet that crosses the threshold, one
	// every reactEvery.
	reactProbes = 2000
	reactEvery  = 20 * time.Microsecond
	reactPort   = 9999
	reactLife   = 10 * time.Minute
	// otherRate is how many packets of other traffic a second there are.
	otherRate = 200_000
)

// BenchmarkReaction prints the time from the packet that crosses a rule's
// threshold to the first packet of the same source that does not arrive, with
// nothing else on the wire and beside other traffic:
//
//	go test -run '^$' -bench '^BenchmarkReaction$' -benchtime 1x ./integration/netns
func BenchmarkReaction(b *testing.B) {
	w := newWire(b)
	rules := filepath.Join(b.TempDir(), "rules.yml")
	must(b, os.WriteFile(rules, fmt.Appendf(nil, "- {name: flood, type: UDP, expression: DstPort == %d, threshold: %d, actions: [{type: iptables_block, config: {duration: %v}}]}\n",
		reactPort, reactThreshold, reactLife), 0o644))
	config := filepath.Join(b.TempDir(), "config.yaml")
	must(b, os.WriteFile(config, fmt.Appendf(nil, "control: %s\nwhitelist_dir: %s\n", filepath.Join(b.TempDir(), "s"), b.TempDir()), 0o644))
	events := filepath.Join(b.TempDir(), "events")
	p, err := netlab.Start(w.to.Command(b.Context(), guardBinary(), "-i", "eth0", "--rules", rules, "--config", config, "--events", events))
	must(b, err)
	b.Cleanup(p.Kill)
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	_, err = p.Await(ctx, func(l netlab.Line) bool { return l.Stderr && strings.HasPrefix(l.Text, "guarding ") })
	must(b, err)
	r := newReaction(b, w)
	for b.Loop() {
		text := fmt.Sprintf("from the packet that crosses the threshold to the first that is dropped, %d sources each\n", reactTrials)
		text += "  nothing else on the wire          " + quantiles(r.trials(b)) + "\n"
		asked, seen := askedAfter(b, events, 0)
		text += "    of that until the block is asked " + quantiles(asked) + "\n"
		stop := r.other(b, w)
		text += "  beside " + fmt.Sprint(otherRate) + " packets a second    " + quantiles(r.trials(b)) + stop() + "\n"
		asked, _ = askedAfter(b, events, seen)
		text += "    of that until the block is asked " + quantiles(asked) + "\n"
		b.Log(text)
	}
	b.ReportMetric(0, "ns/op")
	must(b, p.Stop(b.Context()))
}

// reaction sends datagrams of many sources and knows which arrived.
type reaction struct {
	sender *nstest.Sender
	frame  []byte
	source uint32
	conn   *net.UDPConn
	// arrived of the source under trial, by number.
	arrived [reactThreshold + reactProbes]bool
}

func newReaction(b *testing.B, w wire) *reaction {
	b.Helper()
	r := &reaction{sender: w.sender(b)}
	var mac net.HardwareAddr
	must(b, w.to.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		mac = i.HardwareAddr
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: reactPort})
		if err != nil {
			return err
		}
		b.Cleanup(func() { _ = conn.Close() })
		r.conn = conn
		return forceReadBuffer(conn, 8<<20)
	}))
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{10, 0, 0, 0}, DstIP: w.to.v4.AsSlice()}
	udp := &layers.UDP{SrcPort: 4000, DstPort: reactPort}
	buf := gopacket.NewSerializeBuffer()
	must(b, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
		&layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(make([]byte, 8))))
	r.frame = buf.Bytes()
	return r
}

// forceReadBuffer sets a socket's buffer beyond what is usual.
func forceReadBuffer(conn *net.UDPConn, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) })
	return errors.Join(err, set)
}

// receive notes what has arrived of the source under trial. It is read after
// the trial: to read meanwhile would take the processor that is measured.
func (r *reaction) receive(b *testing.B) {
	b.Helper()
	var data [8]byte
	must(b, r.conn.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
	for {
		_, _, err := r.conn.ReadFromUDPAddrPort(data[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		must(b, err)
		if n := binary.BigEndian.Uint32(data[4:]); binary.BigEndian.Uint32(data[:]) == r.source && int(n) < len(r.arrived) {
			r.arrived[n] = true
		}
	}
}

// send sends the trial's datagram of the number and returns when that was.
func (r *reaction) send(b *testing.B, number int) time.Time {
	f := r.frame
	src := netip.AddrFrom4([4]byte{10, byte(r.source >> 16), byte(r.source >> 8), byte(r.source)}).As4()
	copy(f[14+12:], src[:])
	binary.BigEndian.PutUint16(f[14+10:], 0)
	binary.BigEndian.PutUint16(f[14+10:], headerSum(f[14:14+20]))
	binary.BigEndian.PutUint32(f[14+20+8:], r.source)
	binary.BigEndian.PutUint32(f[14+20+12:], uint32(number))
	at := time.Now()
	must(b, r.sender.Send(f))
	return at
}

// headerSum is the checksum of an IPv4 header whose own field is 0 (RFC 1071).
func headerSum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// trials lets many sources cross the threshold and returns how long each was
// let through, in order.
func (r *reaction) trials(b *testing.B) []time.Duration {
	b.Helper()
	var took []time.Duration
	for range reactTrials {
		r.source++
		clear(r.arrived[:])
		// The trial begins anywhere in the millisecond of the ring; a timer is not
		// that exact.
		for at, pause := time.Now(), rand.N(time.Millisecond); time.Since(at) < pause; {
			continue
		}
		var sent [len(r.arrived)]time.Time
		last := 0
		for i := range sent {
			sent[i] = r.send(b, i)
			last = i
			for i >= reactThreshold && time.Since(sent[i]) < reactEvery {
				continue // a timer is not that exact
			}
		}
		r.receive(b)
		first := reactThreshold
		for i := first; i <= last; i++ {
			if r.arrived[i] {
				first = i + 1
			}
		}
		if first > last {
			took = append(took, sent[last].Sub(sent[reactThreshold-1])) // at least
			continue
		}
		took = append(took, sent[first].Sub(sent[reactThreshold-1]))
	}
	slices.Sort(took)
	return took
}

// askedAfter returns, in order, how long after the packet that crossed the
// threshold the guard asked the firewall for each block, by the events behind
// the first so many bytes; and where they end.
func askedAfter(b *testing.B, path string, seen int) ([]time.Duration, int) {
	b.Helper()
	data, err := os.ReadFile(path)
	must(b, err)
	var took []time.Duration
	for line := range bytes.Lines(data[seen:]) {
		var e struct {
			event
			Timestamp time.Time `json:"timestamp"`
		}
		if json.Unmarshal(line, &e) == nil && e.Type == "action" && e.Action.Result == "created" {
			took = append(took, e.Action.Expires.Add(-reactLife).Sub(e.Timestamp))
		}
	}
	if len(took) == 0 {
		b.Fatalf("no block was made: %s", data[seen:])
	}
	slices.Sort(took)
	return took, len(data)
}

func quantiles(took []time.Duration) string {
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("median %8s   90th %8s   99th %8s   worst %8s", at(0.5), at(0.9), at(0.99), at(1))
}

// other sends other traffic at a steady rate; what it returns ends that and
// says how much it was.
func (r *reaction) other(b *testing.B, w wire) func() string {
	b.Helper()
	s, frames := w.sender(b), mixedFrames(20000)
	ctx, cancel := context.WithCancel(b.Context())
	var sending sync.WaitGroup
	sent, began := 0, time.Now()
	sending.Go(func() {
		const batch = 40
		for ctx.Err() == nil {
			if due := int(time.Since(began).Seconds() * otherRate); sent+batch > due {
				<-time.After(time.Duration(sent+batch-due) * time.Second / otherRate)
				continue
			}
			at := sent % len(frames)
			if s.Send(frames[at:at+batch]...) != nil {
				return
			}
			sent += batch
		}
	})
	return func() string {
		cancel()
		sending.Wait()
		return fmt.Sprintf("   (%.0f a second were sent)", float64(sent)/time.Since(began).Seconds())
	}
}
