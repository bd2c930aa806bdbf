package guard

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// streamConfig bounds what a worker keeps of TCP connections.
func (w *worker) streamConfig() stream.Config {
	cfg := w.shared.streams
	cfg.DNS = w.dec.DNS
	return cfg
}

// follow hands the packet's TCP segment to reassembly. What this host only
// sends on is looked at for its handshake: the other side of a connection that
// it routes comes in through another interface, to another worker. A packet
// that comes in from one of this host's own addresses for somebody else is
// forged, whatever handshake it pretends to be part of; the kernel drops it.
func (w *worker) follow(p *capture.Packet, forwarded bool) {
	if !w.streams.Takes(&w.set) {
		return
	}
	own := w.shared.own.Load()
	from, to := own.has(w.set.Src), own.has(w.set.Dst)
	if from && !to && !p.Outgoing {
		return
	}
	w.set.Segment.Check = unproved(p.Sum, w.set.Segment.Inner)
	w.set.Segment.Gate = 0 // of this host's own packets: its kernel answers for one end
	if w.shared.between && !from && !to {
		w.set.Segment.Gate = uint32(p.Iface) + 1
	}
	w.current, w.inStream = p, true
	w.streams.Segment(&w.set, forwarded)
	w.current, w.inStream = nil, false
}

// unproved reports whether a segment's checksum is there and nobody has looked
// at it: cards look at the outermost one, and not at those of fragments.
func unproved(s capture.Sum, inner bool) bool {
	return s == capture.SumUnchecked || inner && s == capture.SumRight
}

// Record takes a record that a stream completed: it is stream.Sink's.
func (w *worker) Record(set *record.Set) {
	if !set.Late {
		w.tally.count(set.Have)
	}
	if set.Have.Has(record.TypeHTTP) {
		w.shared.proxies.apply(&set.Header, &set.HTTP)
	}
	w.eval.Evaluate(set)
}

// fullRecord is the stream record under evaluation with every field; nil if it
// cannot be had.
func (w *worker) fullRecord() *record.Set {
	kind, msg := w.streams.Message()
	if kind != record.TypeDNS {
		return w.streams.Full()
	}
	w.shown = record.Set{Header: w.set.Header}
	_ = w.all.DNS(msg, &w.shown) // counted before
	return &w.shown
}

// proxies are the trusted ones: they are never blocked for what they pass on.
type proxies []netip.Prefix

// contains reports whether a is a trusted proxy.
func (p proxies) contains(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// apply gives a request that a trusted proxy passed on its client as source,
// and notes the proxy; an answer to a proxy is noted too.
func (p proxies) apply(h *record.Header, r *record.HTTP) {
	if len(p) == 0 {
		return
	}
	if r.IsResponse {
		if p.contains(h.Dst) {
			h.Via = h.Dst
		}
		return
	}
	if !p.contains(h.Src) {
		return
	}
	h.Via = h.Src
	if client := p.client(r.XForwardedFor); client.IsValid() {
		h.Src, h.SrcPort = client, 0
		if r.SrcIP != "" {
			r.SrcIP = client.String()
		}
	}
}

// client is the last address of X-Forwarded-For that is no trusted proxy: the
// one that the outermost trusted proxy saw. What stands before it the client
// may have written itself. The zero Addr if there is none.
func (p proxies) client(forwarded string) netip.Addr {
	for forwarded != "" {
		at := strings.LastIndexByte(forwarded, ',')
		word := strings.TrimSpace(forwarded[at+1:])
		forwarded = forwarded[:max(at, 0)]
		a, err := netip.ParseAddr(word)
		if err != nil {
			ap, err := netip.ParseAddrPort(word) // some proxies add the port
			if err != nil {
				return netip.Addr{}
			}
			a = ap.Addr()
		}
		if a = a.Unmap().WithZone(""); !p.contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// Streamed is the configuration file's section about TCP streams, for all
// workers of an interface together. Zero values are the defaults.
type Streamed struct {
	Connections   int `yaml:"connections"`
	Memory        int `yaml:"memory"`         // MiB
	PerConnection int `yaml:"per_connection"` // KiB
}

// Upper bounds of the section: what takes no more is not worth an error, what
// takes more is a slip of the hand.
const (
	maxStreams      = 16 << 20
	maxStreamMemory = 64 << 10 // MiB
	maxPerStream    = 64 << 10 // KiB
)

// validateStreams checks streams and trusted_proxies.
func (c *Config) validateStreams() []error {
	var errs []error
	for _, s := range c.TrustedProxies {
		if _, err := parsePrefix(s); err != nil {
			errs = append(errs, fmt.Errorf("trusted_proxies: %w", err))
		}
	}
	for _, v := range []struct {
		key       string
		value, to int
	}{
		{"connections", c.Streams.Connections, maxStreams},
		{"memory", c.Streams.Memory, maxStreamMemory},
		{"per_connection", c.Streams.PerConnection, maxPerStream},
	} {
		if v.value < 0 || v.value > v.to {
			errs = append(errs, fmt.Errorf("streams: %s is %d: 0 (the default) to %d", v.key, v.value, v.to))
		}
	}
	return errs
}

// parsePrefix reads an address or a prefix.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is neither an address nor a prefix", s)
	}
	return p.Masked(), nil
}

// Defaults of the section, of all workers of an interface together.
const (
	streamMemory = 16 // MiB
	// leastConnections and leastMemory are what a worker has at least.
	leastConnections = 8192
	leastMemory      = 1 << 20
)

// streams is the section as each of an interface's workers takes it: packets
// are shared out among them by their addresses, and so is the room.
func (c *Config) streams() stream.Config {
	workers := max(c.Workers, 1)
	if len(c.Read) > 0 {
		workers = 1
	}
	connections := cmp.Or(c.Streams.Connections, stream.DefaultConnections)
	memory := cmp.Or(c.Streams.Memory, streamMemory) << 20
	return stream.Config{
		Connections:   min(connections, max(connections/workers, leastConnections)),
		Memory:        min(memory, max(memory/workers, leastMemory)),
		PerConnection: c.Streams.PerConnection << 10,
	}
}

// proxies are the trusted ones; Validate has seen them.
func (c *Config) proxies() proxies {
	var all proxies
	for _, s := range c.TrustedProxies {
		if p, err := parsePrefix(s); err == nil {
			all = append(all, p)
		}
	}
	return all
}
